"""What the tests themselves stand on: forks, what is shared between workers, the cost."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support import forks
from tests.support.processes import ROOT
from tests.support.shared import make_once, session_folder

SAID = "tests.support.said"  # a module that the forks import, which says what it was given


@pytest.fixture(autouse=True)
def here(tmp_path):
    return tmp_path


def test_a_fork_is_a_process_of_its_own(here):
    done = forks.run(SAID, "out", "some", "words", cwd=here, environment={"WITH": "this"})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["words"] == ["out", "some", "words"]
    assert told["folder"] == str(here)
    assert told["pid"] != os.getpid()
    assert (told["with"], told["stdin"], done.stderr) == ("this", "", "err\n")
    assert told["imported"] == ["torch", "transformers"]


@pytest.mark.parametrize(
    ("how", "code"),
    [("exit 3", 3), ("exit no", 1), ("raise", 1), ("SIGTERM", -15), ("interrupt", -2)],
)
def test_it_ends_as_python_does(here, how, code):
    done = forks.run(SAID, *how.split(), cwd=here)
    assert done.returncode == code
    assert ("Traceback" in done.stderr) == (how in ("raise", "interrupt"))
    assert ("at exit" in done.stdout) == (how != "SIGTERM")


def test_it_hears_signals_and_is_waited_for_in_time(here):
    process = forks.start(SAID, "wait", cwd=here)
    assert process.stdout.readline() == "waiting\n"
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    process = forks.start(SAID, "wait", cwd=here)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.1)
    assert process.wait() == -signal.SIGKILL


def test_what_is_read_at_an_import_is_no_fork_s(here):
    with pytest.raises(AssertionError, match="HF_ENDPOINT is read at import"):
        forks.run(SAID, cwd=here, environment={"HF_ENDPOINT": "http://127.0.0.1:1"})


def test_ranks_meet_and_one_s_end_is_all_s_end(here):
    done = forks.run_ranks(3, SAID, "meet", cwd=here)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["0/3:3", "1/3:3", "2/3:3"]
    ranks = forks.start_ranks(2, SAID, "fail", cwd=here)
    assert ranks.wait() == 1
    assert [fork.returncode for fork in ranks.forks] == [-signal.SIGTERM, 3]


def test_it_ends_with_the_one_who_asked(here):
    """Killed, so that nothing could be told: its forks go as well."""
    code = (
        "from tests.support import forks; import time\n"
        f"fork = forks.start({SAID!r}, 'wait', cwd={str(here)!r})\n"
        "print(forks.server().process.pid, fork.pid, flush=True); time.sleep(300)"
    )
    asks = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    pids = [int(word) for word in asks.stdout.readline().split()]
    asks.kill()
    asks.communicate()
    end = time.monotonic() + 60
    while any(map(is_there, pids)):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_is_shared_is_made_once(here):
    made = []

    def make(folder):
        made.append(folder)
        folder.mkdir()
        if len(made) == 1:
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="middle"):
        make_once(here / "a" / "b", make)
    for _ in range(2):
        assert make_once(here / "a" / "b", make).is_dir()
    assert len(made) == 2


def test_workers_share_the_folder_of_their_session(here):
    assert session_folder(here, None) == here / "shared"
    assert session_folder(here / "popen-gw1", "gw1") == here / "shared"
