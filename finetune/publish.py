"""A run's model folder → the Hub, verified.

    check(recipe.publish)                       # before training: the token may write there
    push(run / "model", recipe.publish)         # after scoring → the commit's URL

The only module that imports the Hub client. What goes up is an allow list: whatever else stands in
the folder stays here. HF_ENDPOINT and HF_TOKEN count as they do for `hf`, and no message says the
token.
"""

import hashlib
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (  # type: ignore[attr-defined] # they come lazily
    disable_progress_bars,
    httpx,
    logging,
    parse_ratelimit_headers,
    validate_repo_id,
)

from finetune import recipe, terminal
from finetune.problems import InputError, some

# What `save_pretrained` writes for an encoder with a classification head and its tokenizer, in the
# folder itself; weights only as safetensors, which run no code when they are read.
FILES = re.compile(
    r"""
    README\.md
    | config\.json
    | model(-\d{5}-of-\d{5})?\.safetensors | model\.safetensors\.index\.json
    | (modeling|configuration|tokenization)_\w+\.py
    | tokenizer(_config)?\.json | tokenizer\.model
    | special_tokens_map\.json | added_tokens\.json | chat_template\.jinja
    | vocab\.(json|txt|bpe) | merges\.txt | bpe\.codes | dict\.txt
    | (spiece|spm|sentencepiece(\.bpe)?)\.model
    """,
    re.VERBOSE,
)
WEIGHTS = (".safetensors", ".model")  # binary, not searched for tokens
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")

CHECK_TRIES = 3  # somebody waits at the terminal
PUSH_TRIES = 5
UNREACHED = (httpx.TransportError, ConnectionError, TimeoutError)
# Seconds. The client itself waits for ever; an answer may take long after a large upload.
TIMEOUT = {"connect": 10.0, "read": 120.0, "write": 60.0, "pool": 60.0}

Sleep = Callable[[float], object]
Answer = TypeVar("Answer")


def check(choices: recipe.Publish, sleep: Sleep = time.sleep) -> None:
    """Prove, before hours of training, that `push` will be allowed.

    Creates the repository where there is none: on the Hub that is how to learn whether one may.
    Then asks it how a file would be uploaded, as every push does, since the client takes any
    repository that can be read for success. Nothing is uploaded.

    Raises:
        InputError: for the first thing in the way.
    """
    if choices.repo_id is None:
        return
    repo_id = choices.repo_id
    refuse = _Refusal(repo_id, "train with publish.repo_id=null and push the model afterwards")
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise InputError(
            f"publish.repo_id: '{repo_id}' cannot be the name of a repository; expected "
            "your-name/model: letters, digits, - _ and . (neither - nor . at either end, no -- or "
            "..), not ending in .git, at most 96 of them"
        ) from None
    api = _client(refuse)

    def ask(call: Callable[[], Answer]) -> Answer:
        return _patiently(call, CHECK_TRIES, sleep, refuse)

    refuse.user = ask(api.whoami)

    def write() -> None:
        api.create_repo(repo_id, private=choices.private, exist_ok=True)
        api.preupload_lfs_files(repo_id, [CommitOperationAdd("config.json", b"")])

    ask(write)
    if choices.private and ask(lambda: api.model_info(repo_id)).private is False:
        raise InputError(
            f"publish.private: expected a private repository, but {repo_id} stands on the Hub and "
            f"is public; make it private at {api.endpoint}/{repo_id}/settings, or choose another "
            "publish.repo_id"
        )


def push(folder: Path, choices: recipe.Publish, sleep: Sleep = time.sleep) -> str:
    """Upload a model folder in one commit, compare what arrived, and return the commit's URL.

    A failure that may pass is met with 5 tries in all; within each the client repeats some requests
    on its own. Files that are there already are not sent again. Files of a model pushed before that
    this one lacks are removed in the same commit: an old model.safetensors beside new shards would
    be loaded in their place.

    Raises:
        InputError: saying where the model stands and the command that pushes it.
    """
    assert choices.repo_id is not None, "the recipe names no repository"
    repo_id = choices.repo_id
    files = _files(folder)
    names = [file.name for file in files]
    refuse = _Refusal(
        repo_id,
        f"nothing is lost: the model stands in {folder.resolve()}; push it again with: "
        + _command(folder, names, choices),
    )
    api = _client(refuse)
    _refuse_tokens(files, refuse.token)
    size = sum(file.stat().st_size for file in files) / 1e6
    terminal.say(f"pushing {len(files)} files ({size:,.1f} MB) to {api.endpoint}/{repo_id}")

    def commit() -> CommitInfo:
        # New operations each time: the client notes in them what is on the Hub, and where only the
        # answer was lost, the commit stands there already.
        left = [name for name in _listing(api, repo_id) if _ours(name) and name not in names]
        return api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(file.name, file) for file in files),
                *(CommitOperationDelete(name) for name in left if name != "README.md"),
            ],
            commit_message="Upload a document classifier",
        )

    done = _patiently(commit, PUSH_TRIES, sleep, refuse)
    there = _patiently(lambda: _listing(api, repo_id, done.oid), PUSH_TRIES, sleep, refuse)
    differences = list(_differences(files, there))
    if differences:
        raise InputError(
            f"publish.repo_id: {done.commit_url} does not hold what was pushed: "
            f"{some(differences)}; {refuse.remedy}"
        )
    return str(done.commit_url)


@dataclass
class _Refusal:
    """What went wrong between here and the Hub → one sentence, without the token."""

    repo_id: str
    remedy: str
    token: str = ""
    user: dict[str, Any] = field(default_factory=dict)  # as the Hub knows it, in `check`

    def because(self, reason: str) -> InputError:
        return InputError(f"publish.repo_id: {self.repo_id}: {reason}; {self.remedy}")

    def of(self, error: Exception, tries: int) -> InputError:
        answer, why = _answer(error), self.why(error)
        hub = f"the Hub at {constants.ENDPOINT}"
        times = f", {tries} times" if tries > 1 else ""
        if answer is not None and answer.status_code == 401 and not self.user:
            return self.because(
                f"{hub} refused {self.token_name()} (401); make a new one with write access at "
                f"{constants.ENDPOINT}/settings/tokens"
            )
        if answer is not None and answer.status_code in (401, 403):
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
            f"access to {self.repo_id.partition('/')[0]}/, or a publish.repo_id in "
            + some([f"{home}/" for home in homes])
        )


def _client(refuse: _Refusal) -> HfApi:
    """A quiet client with the user's token.

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


def _patiently(call: Callable[[], Answer], tries: int, sleep: Sleep, refuse: _Refusal) -> Answer:
    """`call()`, again after 1, 2, 4, … seconds, or as long as the Hub asks, while it may help.

    The client does as much for single requests of an upload, within `call`; not for the commit.
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
            terminal.say(f"the Hub: {refuse.why(error)}; trying again in {wait:g} s")
            sleep(wait)
    raise AssertionError("the last try returns or raises")


def _limit_time(request: httpx.Request) -> None:
    """Where the client asks to wait for ever, wait TIMEOUT."""
    if not any((request.extensions.get("timeout") or {}).values()):
        request.extensions["timeout"] = dict(TIMEOUT)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _answer(error: BaseException) -> httpx.Response | None:
    """What the server answered, where that is behind the error."""
    return next((c.response for c in _causes(error) if isinstance(c, HfHubHTTPError)), None)


def _may_pass(error: Exception) -> bool:
    answer = _answer(error)
    if answer is not None:
        return answer.status_code in (408, 429) or answer.status_code >= 500
    # A gateway's page in place of JSON is a server's trouble as well.
    return any(isinstance(cause, (*UNREACHED, JSONDecodeError)) for cause in _causes(error))


def _asked_wait(error: Exception) -> float:
    """Seconds until the answer's rate limit ends, or of its Retry-After; 0 where it has neither."""
    answer = _answer(error)
    if answer is None:
        return 0.0
    limit = parse_ratelimit_headers(answer.headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    asked = answer.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0


def _ours(name: str) -> bool:
    return FILES.fullmatch(name) is not None


def _files(folder: Path) -> list[Path]:
    """The files of a model folder that go up.

    Raises:
        InputError: where that would be no model.
    """
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [file for file in there if file.is_file() and _ours(file.name)]
    names = {file.name for file in files}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise InputError(
            f"{folder}: not a model folder: expected config.json and model.safetensors, found "
            f"{some([file.name for file in there]) or 'nothing'}"
        )
    others = [file.name for file in there if file.name not in names]
    if others:
        terminal.say(f"not pushed, as no part of the model: {some(others)}")
    return files


def _refuse_tokens(files: Sequence[Path], token: str) -> None:
    """Keep a token that somebody wrote into the model card, say, from being published."""
    for file in files:
        if file.suffix in WEIGHTS:
            continue
        text = file.read_text("utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if TOKEN.search(line) or (len(token) >= 20 and token in line):
                raise InputError(
                    f"{file}: line {number} holds what looks like a Hugging Face token, so nothing "
                    "was pushed; take it out (and make a new token), then push again"
                )


def _command(folder: Path, names: Sequence[str], choices: recipe.Publish) -> str:
    """The command that pushes the same files."""
    words = ["hf", "upload", str(choices.repo_id), str(folder.resolve()), "."]
    if choices.private:
        words.append("--private")
    if any(file.name not in names for file in folder.iterdir()):
        for name in names:
            words += ["--include", name]
    return shlex.join(words)


def _listing(api: HfApi, repo_id: str, revision: str | None = None) -> dict[str, RepoFile]:
    """The files at the top of the repository, by name."""
    entries = api.list_repo_tree(repo_id, revision=revision)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _differences(files: Sequence[Path], there: dict[str, RepoFile]) -> Iterator[str]:
    """What the Hub lacks or holds otherwise: by size, then by the hash that it gives."""
    for file in files:
        remote, size = there.get(file.name), file.stat().st_size
        if remote is None:
            yield f"{file.name} is missing"
        elif remote.size != size:
            yield f"{file.name} has {remote.size:,} bytes there, {size:,} here"
        elif _hash(file, remote) != (remote.lfs.sha256 if remote.lfs else remote.blob_id):
            yield f"{file.name} has other content"
    names = {file.name for file in files} | {"README.md"}
    yield from (
        f"{name} is of another model" for name in there if _ours(name) and name not in names
    )


def _hash(file: Path, remote: RepoFile) -> str:
    """As the Hub names content: SHA-256 in large file storage, else git's SHA-1 of a blob."""
    with file.open("rb") as handle:
        if remote.lfs is not None:
            return hashlib.file_digest(handle, "sha256").hexdigest()
        content = handle.read()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
