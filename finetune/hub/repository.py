"""One repository on the Hub: what is there, where a model goes, what of it differs."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from finetune.config import schema
from finetune.hub import model_files
from finetune.hub.client import Answer, Refusal, Sleep, connect, retry
from finetune.hub.model_files import Files
from finetune.runtime import console
from finetune.runtime.errors import InputError

MESSAGE = "Upload a document classifier"  # of the commit; by it a pull request is found again


@dataclass(frozen=True)
class Change:
    """What a push does to one file.

    Attributes:
        size: in bytes, here; of a file that is removed, there.
        differs: how the file there differs, where it is changed.
    """

    name: str
    size: int
    state: Literal["new", "changed", "same", "removed"]
    differs: str = ""


class Repository:
    """A repository on the Hub, and where in it the model goes."""

    def __init__(self, choices: schema.Publish, refuse: Refusal, sleep: Sleep, tries: int) -> None:
        assert choices.repo_id is not None, "the recipe names no repository"
        self.choices, self.repo_id, self.refuse = choices, choices.repo_id, refuse
        self.sleep, self.tries, self.said = sleep, tries, ""
        self.api: HfApi = connect(refuse)

    def ask(self, call: Callable[[], Answer]) -> Answer:
        return retry(call, self.tries, self.sleep, self.refuse)

    def open(self) -> None:
        """Create the repository and the branch where they are missing; see that one may write."""
        choices, api = self.choices, self.api
        self.refuse.user = self.ask(api.whoami)

        def write() -> None:
            api.create_repo(self.repo_id, private=choices.private, exist_ok=True)
            if choices.revision is not None and not choices.revision.startswith("refs/"):
                api.create_branch(self.repo_id, branch=choices.revision, exist_ok=True)
            api.preupload_lfs_files(
                self.repo_id,
                [CommitOperationAdd("config.json", b"")],
                revision=choices.revision,
                create_pr=choices.pull_request,
            )

        self.ask(write)
        if choices.private and self.ask(lambda: api.model_info(self.repo_id)).private is False:
            asked = "publish.private" if self.refuse.key else "--private"
            raise InputError(
                f"{asked}: expected a private repository, but {self.repo_id} stands on the Hub and "
                "is public; make it private at "
                f"{api.endpoint}/{self.repo_id}/settings, or choose another repository"
            )

    def say(self, text: str) -> None:
        """Print a line, once, however often it is tried."""
        if text != self.said:
            console.print_line(text)
        self.said = text

    def target(self) -> str | None:
        """What the model goes onto: a branch, our open pull request where there is one, or main."""
        if not self.choices.pull_request:
            return self.choices.revision
        who = (self.refuse.user or self.api.whoami()).get("name")
        ours = self.api.get_repo_discussions(
            self.repo_id, author=who, discussion_type="pull_request", discussion_status="open"
        )
        number = next((one.num for one in ours if one.title == MESSAGE), None)
        return None if number is None else f"refs/pr/{number}"

    def listing(self, revision: str | None) -> dict[str, RepoFile]:
        """The files at the top of the repository, by name."""
        entries = self.api.list_repo_tree(self.repo_id, revision=revision)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def compare_files(files: Files, there: dict[str, RepoFile]) -> list[Change]:
    """Ours and theirs, by name, size and the hash that the Hub gives.

    A card that somebody wrote there stays where the model brings none.
    """
    return [
        *_of_ours(files, there),
        *(
            Change(name, remote.size, "removed")
            for name, remote in there.items()
            if model_files.is_ours(name) and name not in files and name != "README.md"
        ),
    ]


def _of_ours(files: Files, there: dict[str, RepoFile]) -> Iterator[Change]:
    for name, of in files.items():
        remote, size = there.get(name), model_files.size(of)
        if remote is None:
            yield Change(name, size, "new")
        elif remote.size != size:
            yield Change(name, size, "changed", f"{remote.size:,} bytes there, {size:,} here")
        elif _hash(of, remote) != (remote.lfs.sha256 if remote.lfs else remote.blob_id):
            yield Change(name, size, "changed", "other content")
        else:
            yield Change(name, size, "same")


def _hash(of: Path | bytes, remote: RepoFile) -> str:
    """As the Hub names content: SHA-256 in large file storage, else git's SHA-1 of a blob."""
    if remote.lfs is not None and isinstance(of, Path):
        with of.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    content = model_files.content(of)
    if remote.lfs is not None:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def check_name(repo_id: str, key: str) -> None:
    try:
        validate_repo_id(repo_id)
        if "/" in repo_id:
            return
    except HFValidationError:
        pass
    raise InputError(
        f"{key}'{repo_id}' cannot be the name of a repository; expected your-name/model: letters, "
        "digits, - _ and . (neither - nor . at either end, no -- or ..), not ending in .git, at "
        "most 96 of them"
    )
