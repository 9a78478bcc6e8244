"""One repository on the Hub: its files, where in it a model goes, and which files differ."""

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
from finetune.hub.client import Answer, HubErrors, Sleep, connect, retry
from finetune.hub.model_files import Files
from finetune.modeling.file_names import is_model_file
from finetune.runtime import console
from finetune.runtime.errors import InputError

COMMIT_MESSAGE = "Upload a document classifier"  # a pull request is found again by it


@dataclass(frozen=True)
class Change:
    """What a push does to one file.

    Attributes:
        size: in bytes, here; of a file that is removed, there.
        difference: of the file on the Hub, where it is changed.
    """

    name: str
    size: int
    state: Literal["new", "changed", "same", "removed"]
    difference: str = ""


class Repository:
    """A repository on the Hub, and where in it the model goes."""

    def __init__(
        self, settings: schema.Publish, errors: HubErrors, sleep: Sleep, tries: int
    ) -> None:
        assert settings.repo_id is not None, "the recipe names no repository"
        self.settings, self.repo_id, self.errors = settings, settings.repo_id, errors
        self.sleep, self.tries, self.printed = sleep, tries, ""
        self.api: HfApi = connect(errors)

    def retry(self, call: Callable[[], Answer]) -> Answer:
        return retry(call, self.tries, self.sleep, self.errors)

    def ensure_writable(self) -> None:
        """Create the repository and the branch where they are missing; check that one may write."""
        settings, api = self.settings, self.api
        self.errors.user = self.retry(api.whoami)

        def write() -> None:
            api.create_repo(self.repo_id, private=settings.private, exist_ok=True)
            if settings.revision is not None and not settings.revision.startswith("refs/"):
                api.create_branch(self.repo_id, branch=settings.revision, exist_ok=True)
            api.preupload_lfs_files(
                self.repo_id,
                [CommitOperationAdd("config.json", b"")],
                revision=settings.revision,
                create_pr=settings.pull_request,
            )

        self.retry(write)
        if settings.private and self.retry(lambda: api.model_info(self.repo_id)).private is False:
            option = "publish.private" if self.errors.key else "--private"
            raise InputError(
                f"{option}: expected a private repository, but {self.repo_id} exists on the Hub "
                "and is public; make it private at "
                f"{api.endpoint}/{self.repo_id}/settings, or choose another repository"
            )

    def print_once(self, text: str) -> None:
        """Print a line that retries do not repeat."""
        if text != self.printed:
            console.print_line(text)
        self.printed = text

    def find_target(self) -> str | None:
        """The branch, or our open pull request, that the model goes to; None: main."""
        if not self.settings.pull_request:
            return self.settings.revision
        who = (self.errors.user or self.api.whoami()).get("name")
        ours = self.api.get_repo_discussions(
            self.repo_id, author=who, discussion_type="pull_request", discussion_status="open"
        )
        number = next((pull.num for pull in ours if pull.title == COMMIT_MESSAGE), None)
        return None if number is None else f"refs/pr/{number}"

    def list_files(self, revision: str | None) -> dict[str, RepoFile]:
        """The files of the repository, by their paths in it."""
        entries = self.api.list_repo_tree(self.repo_id, revision=revision, recursive=True)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def compare_files(files: Files, there: dict[str, RepoFile]) -> list[Change]:
    """Local files against those on the Hub, by name, size and hash.

    A card that was written there stays where the model has none, and so do graphs in a folder of
    the repository where the model has none.
    """
    has_graphs = any("/" in name for name in files)
    return [
        *_compare_local(files, there),
        *(
            Change(name, remote.size, "removed")
            for name, remote in there.items()
            if is_model_file(name) and name not in files and name != "README.md"
            if has_graphs or "/" not in name
        ),
    ]


def _compare_local(files: Files, there: dict[str, RepoFile]) -> Iterator[Change]:
    for name, file in files.items():
        remote, size = there.get(name), model_files.size_of(file)
        if remote is None:
            yield Change(name, size, "new")
        elif remote.size != size:
            yield Change(name, size, "changed", f"{remote.size:,} bytes there, {size:,} here")
        elif _hash(file, remote) != (remote.lfs.sha256 if remote.lfs else remote.blob_id):
            yield Change(name, size, "changed", "other content")
        else:
            yield Change(name, size, "same")


def _hash(file: Path | bytes, remote: RepoFile) -> str:
    """As the Hub names content: SHA-256 in large file storage, else git's SHA-1 of a blob."""
    if remote.lfs is not None and isinstance(file, Path):
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    content = model_files.read_content(file)
    if remote.lfs is not None:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def check_repo_id(repo_id: str, key: str) -> None:
    try:
        validate_repo_id(repo_id)
        if "/" in repo_id:
            return
    except HFValidationError:
        pass
    raise InputError(
        f"{key}'{repo_id}' is not a valid repository name; expected your-name/model: letters, "
        "digits, - _ and . (neither - nor . at either end, no -- or ..), not ending in .git, at "
        "most 96 of them"
    )
