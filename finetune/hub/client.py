"""The Hub's client: quiet, with retries, and with errors that a user can act on.

    errors = HubErrors("ann/model", remedy="…")
    api = connect(errors)                                    # with the user's token
    retry(lambda: api.whoami(), PUSH_TRIES, time.sleep, errors)

HF_ENDPOINT and HF_TOKEN work as they do for `hf`, and no message contains the token.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from json import JSONDecodeError
from typing import Any, TypeVar

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined] # they come lazily
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    logging,
)

from finetune.hub.settings import is_on
from finetune.hub.transport import UNREACHED, describe, limit_waiting
from finetune.runtime import console
from finetune.runtime.credentials import register_secret
from finetune.runtime.errors import InputError, shorten
from finetune.runtime.process_state import call_at_end

# What is left of the Hub's rate limit: `"api";r=0;t=55`, no more requests for 55 seconds.
RATE_LIMIT = re.compile(r"\br\s*=\s*(?P<left>\d+)\s*;\s*t\s*=\s*(?P<seconds>\d+)")

Sleep = Callable[[float], object]
Answer = TypeVar("Answer")


@dataclass
class HubErrors:
    """What went wrong with the Hub → an `InputError` of one sentence, without the token.

    Attributes:
        repo_id: where the model should go.
        remedy: what to do about it, as the sentence's end.
        key: the sentence's beginning: the option or recipe key that names the repository.
        user: the token's owner, as the Hub knows it, once it was asked.
    """

    repo_id: str
    remedy: str
    key: str = ""
    token: str = ""
    user: dict[str, Any] = field(default_factory=dict)

    def explain(self, reason: str) -> InputError:
        """The error for a reason that is known."""
        return InputError(f"{self.key}{self.repo_id}: {reason}; {self.remedy}")

    def translate(self, error: Exception, tries: int) -> InputError:
        """The error for an exception of the client's, after so many tries."""
        response, why = find_response(error), self.summarize(error)
        hub = f"the Hub at {constants.ENDPOINT}"
        times = f", {tries} times" if tries > 1 else ""
        if response is not None and response.status_code == 401:
            return self.explain(
                f"{hub} refused {self.token_name()} ({why}); make a new one with write access at "
                f"{constants.ENDPOINT}/settings/tokens"
            )
        if response is not None and response.status_code == 403:
            return self.explain(f"{self.token_name()} may not write there ({why}){self._owner()}")
        if response is not None:
            return self.explain(f"{hub} answered {why}{times}")
        if any(isinstance(cause, UNREACHED) for cause in _causes(error)):
            return self.explain(
                f"cannot reach {hub} ({why}{times}); check the network and HF_ENDPOINT"
            )
        return self.explain(f"unexpected answer from {hub} ({why}{times})")

    def summarize(self, error: Exception) -> str:
        """The status and the server's message, or the first error's own message, on one line."""
        *_, first = _causes(error)
        text = describe(first)
        for cause in _causes(error):
            if isinstance(cause, HfHubHTTPError) and cause.response is not None:
                message = cause.server_message
                text = f"{cause.response.status_code}" + (f": {message}" if message else "")
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


def connect(errors: HubErrors) -> HfApi:
    """A quiet client with the user's token, which `errors` hides from then on.

    Raises:
        InputError: in offline mode, and where there is no token that could be sent.
    """
    if constants.HF_HUB_OFFLINE:
        raise errors.explain(
            "the Hub is out of reach in offline mode; unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE"
        )
    _restore_at_end()
    disable_progress_bars()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call] # it announces its own waits
    # Else it looks for programs to tell the Hub of; from Python, it was imported before.
    constants.HF_HUB_DISABLE_TELEMETRY = is_on(os.environ.get("HF_HUB_DISABLE_TELEMETRY", "1"))
    try:
        token = get_token()
    except Exception as error:  # a login that cannot be renewed, or a service that gives tokens
        raise errors.explain(f"no token is available ({errors.summarize(error)})") from None
    where = f"{constants.ENDPOINT}/settings/tokens"
    if token is None:
        raise errors.explain(
            "found no token to push with; set HF_TOKEN or run `hf auth login`, with a token of "
            f"{where} that has write access"
        )
    errors.token = token
    register_secret(token)
    if not (token.isascii() and token.isprintable() and " " not in token):
        # The HTTP library would say the whole header in its error.
        raise errors.explain(
            f"{errors.token_name()} contains spaces or other characters that no token has; copy it "
            f"again from {where}"
        )
    return HfApi(token=token, library_name="finetune-documents")


def _restore_at_end() -> None:
    """Have what `connect` turns off turned on again, where the process is the caller's."""
    name = "HF_HUB_DISABLE_TELEMETRY"
    call_at_end(partial(setattr, constants, name, getattr(constants, name)))
    if not are_progress_bars_disabled():
        call_at_end(enable_progress_bars)


def retry(call: Callable[[], Answer], tries: int, sleep: Sleep, errors: HubErrors) -> Answer:
    """`call()`, again after 1, 2, 4, … seconds, or as long as the Hub asks, on transient errors.

    The client does as much for single requests of an upload, within `call`; not for the commit.

    Raises:
        InputError: for errors that are not transient, or that are still there after so many tries.
    """
    for number in range(1, tries + 1):
        limit_waiting()
        try:
            return call()
        except Exception as error:  # HTTP's, the client's, its uploader's or plain ValueErrors
            if number == tries or not _is_transient(error):
                raise errors.translate(error, number) from None
            wait = max(2.0 ** (number - 1), _requested_wait(error))
            console.print_line(f"the Hub: {errors.summarize(error)}; trying again in {wait:g} s")
            sleep(wait)
    raise AssertionError("the last try returns or raises")


def find_response(error: BaseException) -> Any:
    """The server's response, of the client's HTTP library, where that caused the error."""
    answers = (cause.response for cause in _causes(error) if isinstance(cause, HfHubHTTPError))
    return next((answer for answer in answers if answer is not None), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_transient(error: Exception) -> bool:
    response = find_response(error)
    if response is not None:
        return response.status_code in (408, 429) or response.status_code >= 500
    # A gateway's page in place of JSON is a server's trouble as well.
    return any(isinstance(cause, (*UNREACHED, JSONDecodeError)) for cause in _causes(error))


def _requested_wait(error: Exception) -> float:
    """Seconds until the answer's rate limit ends, or of its Retry-After; 0 where it has neither."""
    response = find_response(error)
    if response is None:
        return 0.0
    limit = RATE_LIMIT.search(response.headers.get("ratelimit", ""))
    if limit is not None and limit["left"] == "0":
        return float(limit["seconds"])
    requested = response.headers.get("Retry-After", "")
    if requested.isdecimal():
        return float(requested)
    try:
        return max(0.0, round(parsedate_to_datetime(requested).timestamp() - time.time()))
    except ValueError:
        return 0.0
