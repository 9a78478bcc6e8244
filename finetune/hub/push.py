"""A run's model folder → the Hub, compared with what arrived there.

    check(recipe.publish)                   # before training: the token may write there
    push(run, recipe.publish)               # after it, or at any later time → the commit
    plan(run, recipe.publish)               # what a push would do; nothing is written
    verify(run, recipe.publish, pushed)     # down again, loaded without this package, scored

A push can be repeated: what is there already is not sent, and where all of it is, no commit is
made. `client.py` has the patience, `model_files.py` says what a model's files are,
`repository.py` how those there differ.
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
from finetune.hub.client import Refusal, Sleep
from finetune.hub.model_files import Files
from finetune.hub.repository import MESSAGE, Change, Repository, check_name, compare_files
from finetune.runtime import console
from finetune.runtime.errors import InputError, shorten

CHECK_TRIES = 3  # somebody waits at the terminal
PUSH_TRIES = 5
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "push_to_hub.py"


@dataclass(frozen=True)
class Plan:
    """What a push would do. `where`: the repository, and whether it or its branch is made first."""

    where: str
    changes: Sequence[Change]


@dataclass(frozen=True)
class Pushed:
    """What a push did: `commit` names it by its hash; `sent` counts files, 0 where none differed.

    Attributes:
        url: the commit's, or the pull request's.
    """

    url: str
    commit: str
    sent: int


def check_access(choices: schema.Publish, sleep: Sleep = time.sleep) -> None:
    """Prove, before hours of training, that `push` will be allowed.

    Creates the repository, and the branch, where there is none: on the Hub that is how to learn
    whether one may. Then asks how a file would be uploaded, as every push does, since the client
    takes any repository that can be read for success. Nothing is uploaded.

    Raises:
        InputError: for the first thing in the way.
    """
    if choices.repo_id is None:
        return
    refuse = Refusal(
        choices.repo_id,
        "train with publish.repo_id=null and push the model afterwards",
        key="publish.repo_id: ",
    )
    check_name(choices.repo_id, refuse.key)
    Repository(choices, refuse, sleep, CHECK_TRIES).open()


def push(
    run: Path,
    choices: schema.Publish,
    sleep: Sleep = time.sleep,
    trust_remote_code: bool = False,
) -> Pushed:
    """Upload what differs in one commit, and compare what arrived.

    A failure that may pass is met with 5 tries in all; within each the client repeats some requests
    on its own. Files of a model pushed before that this one lacks are removed in the same commit:
    an old model.safetensors beside new shards would be loaded in their place.

    Args:
        run: the folder of a finished run, or a model folder.
        trust_remote_code: push a model that loads code from another repository.

    Raises:
        InputError: saying where the model stands and the command that pushes it.
    """
    folder, files, repository = _prepare(run, choices, sleep, trust_remote_code)
    others = model_files.others(folder)
    if others:
        console.print_line(f"not pushed, as no part of the model: {shorten(others)}")
    repository.open()
    done = repository.ask(lambda: _commit(repository, files))
    there = repository.ask(lambda: repository.listing(done.commit))
    wrong = [change for change in compare_files(files, there) if change.state != "same"]
    if wrong:
        raise InputError(
            f"{done.url} does not hold what was pushed: "
            f"{shorten([_said(change) for change in wrong])}; {repository.refuse.remedy}"
        )
    return done


def plan_push(
    run: Path,
    choices: schema.Publish,
    sleep: Sleep = time.sleep,
    trust_remote_code: bool = False,
) -> Plan:
    """What `push` would do now, file by file. Nothing is created or written.

    Raises:
        InputError: as `push` does, as far as asking alone can tell.
    """
    _, files, repository = _prepare(run, choices, sleep, trust_remote_code)
    api, repo_id = repository.api, repository.repo_id
    where = f"{api.endpoint}/{repo_id}"

    def look() -> Plan:
        try:
            public = not api.model_info(repo_id).private
        except RepositoryNotFoundError:
            kind = "private" if choices.private else "public"
            return Plan(f"{where}, which would be created, {kind}", compare_files(files, {}))
        told = f"{where}, which is {'public' if public else 'private'}"
        try:
            there = repository.listing(repository.target())
            told += f", on {choices.revision}" if choices.revision else ""
        except RevisionNotFoundError:
            there = repository.listing(None)
            told += f", on the branch {choices.revision}, which would be created"
        told += ", as a pull request" if choices.pull_request else ""
        return Plan(told, compare_files(files, there))

    return repository.ask(look)


def verify(
    run: Path,
    choices: schema.Publish,
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

    # What was pushed is looked at below, where it arrived.
    folder, files, repository = _prepare(run, choices, sleep, trust_remote_code=True)
    with tempfile.TemporaryDirectory() as scratch:
        there = Path(scratch) / "model"
        repository.ask(
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


def command(run: Path, choices: schema.Publish) -> str:
    """The command that pushes the same model to the same place."""
    script = os.path.relpath(SCRIPT) if SCRIPT.is_relative_to(Path.cwd()) else str(SCRIPT)
    words = ["python", script, str(run.resolve()), str(choices.repo_id)]
    if choices.private:
        words.append("--private")
    if choices.revision is not None:
        words += ["--revision", choices.revision]
    if choices.pull_request:
        words.append("--pull-request")
    return shlex.join(words)


def _prepare(
    run: Path, choices: schema.Publish, sleep: Sleep, trust_remote_code: bool
) -> tuple[Path, Files, Repository]:
    """The model folder, what goes up of it, and a way to the Hub."""
    assert choices.repo_id is not None, "the recipe names no repository"
    check_name(choices.repo_id, "REPO_ID: ")
    folder = model_files.folder_of(run)
    files = model_files.read(folder, choices.repo_id)
    refuse = Refusal(
        choices.repo_id,
        f"nothing is lost: the model stands in {folder.resolve()}; push it again with: "
        + command(run, choices),
    )
    repository = Repository(choices, refuse, sleep, PUSH_TRIES)
    model_files.refuse_secrets(folder, files, refuse.token)
    elsewhere = [] if trust_remote_code else model_files.foreign_code(folder)
    if elsewhere:
        raise InputError(
            f"{folder}: whoever loads this model would run code of another repository "
            f"({shorten(elsewhere)}), which may change under it, so nothing was pushed; copy that "
            "code into the folder and name it there without the repository, or push it as it is "
            "with --trust-remote-code"
        )
    return folder, files, repository


def _commit(repository: Repository, files: Files) -> Pushed:
    """One try. It looks anew at what is there: an answer may be lost after the commit was made."""
    api, choices = repository.api, repository.choices
    target = repository.target()
    changes = [
        change
        for change in compare_files(files, repository.listing(target))
        if change.state != "same"
    ]
    page = f"{api.endpoint}/{repository.repo_id}"
    _, opened, number = (target or "").partition("refs/pr/")
    discussion = f"{page}/discussions/{number}" if opened else None
    if not changes:
        found = str(api.model_info(repository.repo_id, revision=target).sha)
        return Pushed(discussion or f"{page}/commit/{found}", found, 0)
    sent = [change for change in changes if change.state != "removed"]
    repository.say(
        f"pushing {len(sent)} of {len(files)} files "
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
        commit_message=MESSAGE,
        revision=target,
        create_pr=choices.pull_request and not opened,
    )
    return Pushed(discussion or done.pr_url or str(done.commit_url), done.oid, len(changes))


def _said(change: Change) -> str:
    """How a file that has just been pushed can differ."""
    match change.state:
        case "new":
            return f"{change.name} is missing"
        case "removed":
            return f"{change.name} is of another model"
        case _:
            return f"{change.name} has {change.differs}"
