"""One call at a time in a thread, whose error is raised where somebody waits for it."""

import threading

import pytest

from finetune.runtime.background_call import BackgroundCall


def test_the_next_call_waits_for_the_one_before():
    calls, gate, done = BackgroundCall("test"), threading.Event(), []
    calls.start(lambda: (gate.wait(60), done.append("first")))
    assert done == []
    second = threading.Thread(target=lambda: calls.start(lambda: done.append("second")))
    second.start()
    second.join(0.05)
    assert second.is_alive()
    gate.set()
    second.join(60)
    calls.wait()
    assert done == ["first", "second"]
    calls.wait()  # nothing to wait for


def test_an_error_is_raised_once_and_the_next_call_not_begun():
    calls, done = BackgroundCall("test"), []

    def fail():
        raise OSError("no room")

    calls.start(fail)
    with pytest.raises(OSError, match="no room"):
        calls.start(lambda: done.append(1))
    assert not calls.has_failed()
    calls.start(fail)
    calls._thread.join(60)
    assert calls.has_failed()
    with pytest.raises(OSError, match="no room"):
        calls.wait()
    assert not calls.has_failed()
    calls.wait()
    assert done == []
