"""What a request says of where it goes and where it comes from → whether it is refused."""

import asyncio

import pytest

from finetune.inference import http_guard


def messages(*parts, ends=True):
    """What a server gives of a body in parts."""
    left = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if ends and left:
        left[-1]["more_body"] = False

    async def receive():
        return left.pop(0) if left else {"type": "http.disconnect"}

    return receive, left


@pytest.mark.parametrize("parts", [(b"abcdef",), (b"abc", b"def"), (b"", b"abcdef", b"")])
def test_a_body_is_read_whole_or_not_at_all(parts):
    assert asyncio.run(http_guard.read_body(messages(*parts)[0], 6)) == b"abcdef"
    assert asyncio.run(http_guard.read_body(messages(*parts)[0], 5)) is None
    cut, _ = messages(*parts, ends=False)
    assert asyncio.run(http_guard.read_body(cut, 6)) == b"abcdef"


def test_what_is_refused_is_read_to_its_end_and_no_further_than_a_limit():
    receive, left = messages(b"abc", b"def")
    asyncio.run(http_guard.discard_body(receive, 100))
    assert not left
    receive, left = messages(b"abc", b"def", b"ghi")
    asyncio.run(http_guard.discard_body(receive, 2))
    assert len(left) == 2


def test_headers_keep_every_value():
    scope = {"headers": [(b"Host", b"a"), (b"host", b"b"), (b"x", b"\xe9")]}
    assert http_guard.read_headers(scope) == {"host": ["a", "b"], "x": ["\xe9"]}


def test_one_host_that_is_its_own_and_one_origin_that_is_the_host():
    is_own = http_guard.LOOPBACK_HOST.fullmatch
    for hosts in ([], ["evil.example"], ["localhost", "localhost"]):
        assert http_guard.refuse_host({"host": hosts}, is_own, "why") == (421, "why")
    own = {"host": ["localhost:8"]}
    assert http_guard.refuse_host(own, is_own, "why") is None
    assert http_guard.refuse_origin(own | {"origin": ["http://localhost:8"]}) is None
    assert http_guard.refuse_origin(own | {"origin": ["https://localhost:8"]}) is not None
    both = ("http", "https")
    assert http_guard.refuse_origin(own | {"origin": ["https://localhost:8"]}, both) is None
    assert http_guard.refuse_site({"sec-fetch-site": ["none", "cross-site"]}) is not None
    assert http_guard.refuse_length({"content-length": ["9" * 50]}, 10) == (
        413,
        "more than 10 bytes",
    )
