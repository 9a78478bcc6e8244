"""A run's model folder → the Hub, compared with what arrived there.

    check_access(recipe.publish)            # before training: the token may write there
    push(run, recipe.publish)               # after it, or at any later time → the commit
    plan_push(run, recipe.publish)          # what a push would do; nothing is written
    verify(run, recipe.publish, pushed)     # downloads it, loads it without this package, scores it

A push can be repeated: unchanged files are not sent, and where nothing changed, no commit is made.
`client.py` has the retries, `model_files.py` the list of a model's files, `repository.py` the
comparison.
"""

import os
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from finetune.config import schema
from finetune.hub import model_files
from finetune.hub.client import HubErrors, Sleep
from finetune.hub.model_files import Files
from finetune.hub.repository import COMMIT_MESSAGE, Change, Repository, check_repo_id, compare_files
from finetune.modeling import model_identity
from finetune.runtime import console
from finetune.runtime.credentials import mask_address
from finetune.runtime.errors import InputError, shorten

CHECK_TRIES = 3  # somebody waits at the terminal
PUSH_TRIES = 5
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "push_to_hub.py"


@dataclass(frozen=True)
class Plan:
    """What a push would do. `where`: the repository, and whether it or its branch is created."""

    where: str
    changes: Sequence[Change]


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        url: the commit's, or the pull request's.
        commit: its hash.
        sent: number of files; 0 where none differed.
    """

    url: str
    commit: str
    sent: int


def check_access(settings: schema.Publish, sleep: Sleep = time.sleep) -> None:
    """Check, before hours of training, that `push` will be allowed.

    Says where it publishes, and only then creates the repository, and the branch, where there is
    none: the Hub has no other way to ask.
    Then asks how a file would be uploaded, as every push does, since for the client any repository
    that can be read is a success. Nothing is uploaded.

    Raises:
        InputError: for the first problem.
    """
    if settings.repo_id is None:
        return
    errors = HubErrors(
        settings.repo_id,
        "train with publish.repo_id=null and push the model afterwards",
        key="publish.repo_id: ",
    )
    check_repo_id(settings.repo_id, errors.key)
    repository = Repository(settings, errors, sleep, CHECK_TRIES)
    console.print_line(  # before anything is there, or is public
        f"Publishes to {mask_address(repository.api.endpoint)}/{settings.repo_id} after "
        f"scoring; where it does not exist, it is created now, "
        f"{'private' if settings.private else 'public'}",
        even_if_quiet=True,
    )
    repository.ensure_writable()


def push(
    run: Path,
    settings: schema.Publish,
    sleep: Sleep = time.sleep,
    trust_remote_code: bool = False,
    remedy: str | None = None,
) -> Pushed:
    """Upload what differs in one commit, and compare what arrived.

    A transient failure is retried, 5 times in all; within each the client repeats some requests on
    its own. Files of a model pushed before that this one lacks are removed in the same commit:
    an old model.safetensors beside new shards would be loaded in their place.

    Args:
        run: the folder of a finished run, or a model folder.
        trust_remote_code: push a model that loads code from another repository.
        remedy: what every message ends with; None: where the model is, and how to push it again.

    Raises:
        InputError: with the folder of the model and the command that pushes it.
    """
    folder, files, repository = _prepare(run, settings, sleep, trust_remote_code, remedy)
    others = model_files.list_other_files(folder, files)
    if others:
        console.print_line(f"Skipped, not part of the model: {shorten(others)}")
    repository.ensure_writable()
    done = repository.retry(lambda: _commit(repository, files))
    there = repository.retry(lambda: repository.list_files(done.commit))
    changes = [change for change in compare_files(files, there) if change.state != "same"]
    if changes:
        differences = shorten([_describe_difference(change) for change in changes])
        raise InputError(
            f"{done.url} does not hold what was pushed: {differences}; {repository.errors.remedy}"
        )
    return done


def plan_push(
    run: Path,
    settings: schema.Publish,
    sleep: Sleep = time.sleep,
    trust_remote_code: bool = False,
) -> Plan:
    """What `push` would do now, file by file. Nothing is created or written.

    Raises:
        InputError: as `push` does, as far as asking alone can tell.
    """
    _, files, repository = _prepare(run, settings, sleep, trust_remote_code)
    api, repo_id = repository.api, repository.repo_id
    where = f"{api.endpoint}/{repo_id}"

    def compare() -> Plan:
        try:
            public = not api.model_info(repo_id).private
        except RepositoryNotFoundError:
            kind = "private" if settings.private else "public"
            return Plan(f"{where}, which would be created, {kind}", compare_files(files, {}))
        target = f"{where}, which is {'public' if public else 'private'}"
        try:
            there = repository.list_files(repository.find_target())
            target += f", on {settings.revision}" if settings.revision else ""
        except RevisionNotFoundError:
            there = repository.list_files(None)
            target += f", on the branch {settings.revision}, which would be created"
        target += ", as a pull request" if settings.pull_request else ""
        return Plan(target, compare_files(files, there))

    return repository.retry(compare)


def verify(
    run: Path,
    settings: schema.Publish,
    done: Pushed,
    trust_remote_code: bool = False,
    sleep: Sleep = time.sleep,
) -> int:
    """Download the model at its commit, load it where this package is not, and score sample rows.

    Returns:
        The number of rows, on each of which its logits are those of the folder here, bit by bit.

    Raises:
        InputError: where they are not, or where it does not load.
    """
    from finetune.hub import (
        verify as verify_module,  # which imports torch: all else here starts without it
    )

    # Its code is checked below, in the download.
    folder, files, repository = _prepare(run, settings, sleep, trust_remote_code=True)
    with tempfile.TemporaryDirectory() as scratch:
        there = Path(scratch) / "model"
        repository.retry(
            lambda: repository.api.snapshot_download(
                repository.repo_id,
                revision=done.commit,
                local_dir=there,
                allow_patterns=list(files),
            )
        )
        try:
            return verify_module.verify_logits(run, folder, there, trust_remote_code)
        except InputError as error:
            raise InputError(f"{done.url}: {error}") from None


def describe_remedy(run: Path, folder: Path, settings: schema.Publish) -> str:
    """Where the model is, and the command that pushes it again."""
    return f"the model is safe in {folder.resolve()}; push it again with: {command(run, settings)}"


def command(run: Path, settings: schema.Publish) -> str:
    """The command that pushes the same model to the same place."""
    script = os.path.relpath(SCRIPT) if SCRIPT.is_relative_to(Path.cwd()) else str(SCRIPT)
    words = ["python", script, str(run.resolve()), str(settings.repo_id)]
    if settings.private:
        words.append("--private")
    if settings.revision is not None:
        words += ["--revision", settings.revision]
    if settings.pull_request:
        words.append("--pull-request")
    if settings.onnx:
        words.append("--onnx")
    return shlex.join(words)


def _prepare(
    run: Path,
    settings: schema.Publish,
    sleep: Sleep,
    trust_remote_code: bool,
    remedy: str | None = None,
) -> tuple[Path, Files, Repository]:
    """The model folder, its files to push, and the repository."""
    assert settings.repo_id is not None, "the recipe names no repository"
    check_repo_id(settings.repo_id, "REPO_ID: ")
    folder = model_files.find_model_folder(run)
    files = model_files.collect_files(folder, settings.repo_id)
    model_identity.check_files(folder)
    errors = HubErrors(
        settings.repo_id,
        remedy or describe_remedy(run, folder, settings),
    )
    repository = Repository(settings, errors, sleep, PUSH_TRIES)
    model_files.refuse_secrets(folder, files, errors.token)
    elsewhere = [] if trust_remote_code else model_files.find_foreign_code(folder)
    if elsewhere:
        raise InputError(
            f"{folder}: this model loads code of another repository ({shorten(elsewhere)}), which "
            "may change at any time; nothing was pushed. Copy that code into the folder and name "
            "it without the repository, or push the model as it is with --trust-remote-code"
        )
    return folder, files, repository


def _commit(repository: Repository, files: Files) -> Pushed:
    """One try. It lists the repository again: an answer may be lost after the commit was made."""
    api, settings = repository.api, repository.settings
    target = repository.find_target()
    changes = [
        change
        for change in compare_files(files, repository.list_files(target))
        if change.state != "same"
    ]
    page = f"{api.endpoint}/{repository.repo_id}"
    _, opened, number = (target or "").partition("refs/pr/")
    discussion = f"{page}/discussions/{number}" if opened else None
    if not changes:
        head = str(api.model_info(repository.repo_id, revision=target).sha)
        return Pushed(discussion or f"{page}/commit/{head}", head, 0)
    sent = [change for change in changes if change.state != "removed"]
    repository.print_once(
        f"Pushing {len(sent)} of {len(files)} files "
        f"({sum(change.size for change in sent) / 1e6:,.1f} MB) to {page}"
    )
    done = api.create_commit(
        repository.repo_id,
        [
            CommitOperationDelete(change.name)
            if change.state == "removed"
            else CommitOperationAdd(change.name, files[change.name])
            for change in changes
        ],
        commit_message=COMMIT_MESSAGE,
        revision=target,
        create_pr=settings.pull_request and not opened,
    )
    return Pushed(discussion or done.pr_url or str(done.commit_url), done.oid, len(changes))


def _describe_difference(change: Change) -> str:
    """How a file that was just pushed differs."""
    match change.state:
        case "new":
            return f"{change.name} is missing"
        case "removed":
            return f"{change.name} is of another model"
        case _:
            return f"{change.name} has {change.difference}"
