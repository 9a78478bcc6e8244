"""The Hub's client, made quiet, patient, and able to say in one sentence what is in the way.

    refuse = Refusal("ann/model", remedy="…")
    api = connect(refuse)                                    # with the user's token
    patiently(lambda: api.whoami(), PUSH_TRIES, time.sleep, refuse)

HF_ENDPOINT and HF_TOKEN count as they do for `hf`, and no message says the token.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from json import JSONDecodeError
from typing import Any, TypeVar

from huggingface_hub import HfApi, constants, get_session, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined] # they come lazily
    disable_progress_bars,
    httpx,
    logging,
    parse_ratelimit_headers,
)

from finetune.runtime import console
from finetune.runtime.errors import InputError, shorten

UNREACHED = (httpx.TransportError, ConnectionError, TimeoutError)
# Seconds. The client itself waits for ever; an answer may take long after a large upload.
TIMEOUT = {"connect": 10.0, "read": 120.0, "write": 60.0, "pool": 60.0}

Sleep = Callable[[float], object]
Answer = TypeVar("Answer")


@dataclass
class Refusal:
    """What went wrong between here and the Hub → one sentence, without the token.

    Attributes:
        repo_id: where the model should go.
        remedy: what to do about it, as the sentence's end.
        key: what the sentence begins with: where the user wrote the repository.
        user: who the token belongs to, as the Hub says, once that is known.
    """

    repo_id: str
    remedy: str
    key: str = ""
    token: str = ""
    user: dict[str, Any] = field(default_factory=dict)

    def because(self, reason: str) -> InputError:
        return InputError(f"{self.key}{self.repo_id}: {reason}; {self.remedy}")

    def of(self, error: Exception, tries: int) -> InputError:
        answer, why = answer_behind(error), self.why(error)
        hub = f"the Hub at {constants.ENDPOINT}"
        times = f", {tries} times" if tries > 1 else ""
        if answer is not None and answer.status_code == 401:
            return self.because(
                f"{hub} refused {self.token_name()} ({why}); make a new one with write access at "
                f"{constants.ENDPOINT}/settings/tokens"
            )
        if answer is not None and answer.status_code == 403:
            return self.because(f"{self.token_name()} may not write there ({why}){self._owner()}")
        if answer is not None:
            return self.because(f"{hub} answered {why}{times}")
        if any(isinstance(cause, UNREACHED) for cause in _causes(error)):
            return self.because(
                f"cannot reach {hub} ({why}{times}); check the network and HF_ENDPOINT"
            )
        return self.because(f"no right answer from {hub} ({why}{times})")

    def why(self, error: Exception) -> str:
        """The status and what the server said, or the first error's own words, on one line."""
        *_, first = _causes(error)
        text = f"{type(first).__name__}: {first}"
        for cause in _causes(error):
            if isinstance(cause, HfHubHTTPError):
                said = cause.server_message
                text = f"{cause.response.status_code}" + (f": {said}" if said else "")
                break
        text = " ".join(text.split()).rstrip(".")
        return (text.replace(self.token, "…") if self.token else text)[:300]

    def token_name(self) -> str:
        by_variable = os.environ.get("HF_TOKEN", "").strip() == self.token
        return "the token in HF_TOKEN" if by_variable else "the token of `hf auth login`"

    def _owner(self) -> str:
        if not self.user:
            return ""
        grant = (self.user.get("auth") or {}).get("accessToken") or {}
        homes = [self.user.get("name"), *(org.get("name") for org in self.user.get("orgs") or ())]
        return (
            f"; it is {homes[0]}'s, its role {grant.get('role', 'unknown')}: take one with write "
            f"access to {self.repo_id.partition('/')[0]}/, or a repository in "
            + shorten([f"{home}/" for home in homes])
        )


def connect(refuse: Refusal) -> HfApi:
    """A quiet client with the user's token, which `refuse` knows from then on.

    Raises:
        InputError: in offline mode, and where there is no token that could be sent.
    """
    if constants.is_offline_mode():
        raise refuse.because(
            "the Hub is out of reach in offline mode; unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE"
        )
    disable_progress_bars()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call] # it announces its own waits
    constants.HF_HUB_DISABLE_TELEMETRY = True  # else it looks for programs to tell the Hub of
    try:
        token = get_token()
    except Exception as error:  # a login that cannot be renewed, or a service that gives tokens
        raise refuse.because(f"there is no token to be had ({refuse.why(error)})") from None
    where = f"{constants.ENDPOINT}/settings/tokens"
    if token is None:
        raise refuse.because(
            "found no token to push with; set HF_TOKEN or run `hf auth login`, with a token of "
            f"{where} that has write access"
        )
    refuse.token = token
    if not (token.isascii() and token.isprintable() and " " not in token):
        # httpx would say the whole header in its error.
        raise refuse.because(
            f"{refuse.token_name()} has spaces or signs that no token has; copy it again from "
            + where
        )
    return HfApi(token=token, library_name="finetune-documents")


def retry(call: Callable[[], Answer], tries: int, sleep: Sleep, refuse: Refusal) -> Answer:
    """`call()`, again after 1, 2, 4, … seconds, or as long as the Hub asks, while it may help.

    The client does as much for single requests of an upload, within `call`; not for the commit.

    Raises:
        InputError: for what does not pass, or has not passed after so many tries.
    """
    for number in range(1, tries + 1):
        hooks = get_session().event_hooks["request"]
        if _limit_time not in hooks:  # a session made anew after a lost connection has none
            hooks.append(_limit_time)
        try:
            return call()
        except Exception as error:  # httpx's, the client's, its uploader's or plain ValueErrors
            if number == tries or not _may_pass(error):
                raise refuse.of(error, number) from None
            wait = max(2.0 ** (number - 1), _asked_wait(error))
            console.print_line(f"the Hub: {refuse.why(error)}; trying again in {wait:g} s")
            sleep(wait)
    raise AssertionError("the last try returns or raises")


def answer_behind(error: BaseException) -> httpx.Response | None:
    """What the server answered, where that is behind the error."""
    return next((c.response for c in _causes(error) if isinstance(c, HfHubHTTPError)), None)


def _limit_time(request: httpx.Request) -> None:
    """Where the client asks to wait for ever, wait TIMEOUT."""
    if not any((request.extensions.get("timeout") or {}).values()):
        request.extensions["timeout"] = dict(TIMEOUT)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _may_pass(error: Exception) -> bool:
    answer = answer_behind(error)
    if answer is not None:
        return answer.status_code in (408, 429) or answer.status_code >= 500
    # A gateway's page in place of JSON is a server's trouble as well.
    return any(isinstance(cause, (*UNREACHED, JSONDecodeError)) for cause in _causes(error))


def _asked_wait(error: Exception) -> float:
    """Seconds until the answer's rate limit ends, or of its Retry-After; 0 where it has neither."""
    answer = answer_behind(error)
    if answer is None:
        return 0.0
    limit = parse_ratelimit_headers(answer.headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    asked = answer.headers.get("Retry-After", "")
    if asked.isdecimal():
        return float(asked)
    try:
        return max(0.0, round(parsedate_to_datetime(asked).timestamp() - time.time()))
    except ValueError:
        return 0.0
