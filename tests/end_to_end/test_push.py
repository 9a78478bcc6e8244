"""`finetune.hub.push` against a Hub on this machine that can fail in every way."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download
from safetensors.torch import load_file, save_file

from finetune.config.schema import Model, Publish
from finetune.hub import push, transport, verify
from finetune.inference.sentence_layout import FOLDER
from finetune.modeling import build, pretrained, saved_model
from finetune.runtime.errors import InputError
from tests.support.hub import REFUSED, TIMED_OUT, TOKEN, Fault, File, Hub, close_session
from tests.support.runs import results, run_here
from tests.support.tiny import tiny_encoder

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's
CARD = "---\nlicense: apache-2.0\n---\n# A model card\n"
CHOICES = Publish(repo_id="ann/model")
WITHOUT = "train with publish.repo_id=null and push the model afterwards"


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as a run writes it, and its card."""
    root = tmp_path_factory.mktemp("publish")
    encoder = tiny_encoder(root / "encoder")
    choices = Model(source=str(encoder), freeze="none")
    classifier = build.build_classifier(str(encoder), choices, ["a", "b"], "eager", 0)
    tokenizer = pretrained.load_tokenizer(str(encoder), choices)
    saved_model.replace_model_folder(classifier, tokenizer, root / "model", classifier.state_dict())
    (root / "model" / "README.md").write_text(CARD)
    return root / "model"


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "run" / "model"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub, and a client that talks to it as user ann."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name, value in {
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": False,  # publish turns it off
        "HF_HUB_OFFLINE": False,
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        "AGENT_HARNESSES_PATH": str(tmp_path / "no-harnesses"),
    }.items():
        monkeypatch.setattr(constants, name, value, raising=False)  # older clients lack the last
    close_session()
    with Hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):  # where releases before 1.0 hold a copy
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        yield hub
    close_session()


Script = Callable[..., tuple[int, str, str]]


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The script in this process, which talks to the Hub above: exit code, output and errors."""

    def start(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(push.SCRIPT), *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(push.SCRIPT), run_name="__main__")
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return start


def local(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def pushed(hub: Hub, repo_id: str = "ann/model") -> dict[str, bytes]:
    files = hub.files(repo_id)
    del files[".gitattributes"]
    return files


def check_problem(choices: Publish = CHOICES) -> str:
    """The whole message, which never says the token."""
    with pytest.raises(InputError) as caught:
        push.check_access(choices, sleep=lambda seconds: None)
    assert len(caught.value.problems) == 1
    assert TOKEN not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return str(caught.value).replace("(401: Invalid credentials in Authorization header)", "(401)")


def push_problem(folder: Path, choices: Publish = CHOICES) -> str:
    with pytest.raises(InputError) as caught:
        push.push(folder, choices, sleep=lambda seconds: None)
    assert TOKEN not in str(caught.value)
    return str(caught.value).replace("(401: Invalid credentials in Authorization header)", "(401)")


def again(folder: Path, more: str = "") -> str:
    return (
        f"the model is safe in {folder}; push it again with: "
        f"python {os.path.relpath(push.SCRIPT)} {folder} ann/model{more}"
    )


# --- check ----------------------------------------------------------------------------------------


def test_no_repository_asks_nothing(hub: Hub) -> None:
    push.check_access(Publish())
    assert hub.requests == []


@pytest.mark.parametrize("private", [False, True])
def test_check_creates_the_repository_and_uploads_nothing(hub: Hub, private: bool) -> None:
    choices = Publish(repo_id="ann/model", private=private)
    push.check_access(choices)
    assert hub.repos["ann/model"].private is private
    assert list(hub.files("ann/model")) == [".gitattributes"]
    push.check_access(choices)  # 409: it is there
    assert hub.repos["ann/model"].messages == ["initial commit"]
    assert not hub.asked("PUT", "")


def test_no_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert check_problem() == (
        "publish.repo_id: ann/model: found no token to push with; set HF_TOKEN or run "
        f"`hf auth login`, with a token of {hub.url}/settings/tokens that has write access; "
        f"{WITHOUT}"
    )
    assert hub.requests == []


def test_the_token_of_a_login_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    Path(constants.HF_TOKEN_PATH).write_text(TOKEN + "\n", encoding="utf-8")
    push.check_access(CHOICES)
    hub.token = "another"
    assert check_problem() == (
        f"publish.repo_id: ann/model: the Hub at {hub.url} refused the token of `hf auth login` "
        f"(401); make a new one with write access at {hub.url}/settings/tokens; {WITHOUT}"
    )


def test_a_refused_token(hub: Hub) -> None:
    hub.token = "another"
    assert check_problem() == (
        f"publish.repo_id: ann/model: the Hub at {hub.url} refused the token in HF_TOKEN (401); "
        f"make a new one with write access at {hub.url}/settings/tokens; {WITHOUT}"
    )
    assert len(hub.requests) == 1


@pytest.mark.parametrize("token", ["hf_one hf_two", "hf_…", "hf_\x7f"])
def test_a_token_that_no_header_takes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert check_problem() == (
        "publish.repo_id: ann/model: the token in HF_TOKEN contains spaces or other characters "
        f"that no token has; copy it again from {hub.url}/settings/tokens; {WITHOUT}"
    )
    assert hub.requests == []


def test_no_rights_in_the_namespace(hub: Hub) -> None:
    assert check_problem(Publish(repo_id="other/model")) == (
        "publish.repo_id: other/model: the token in HF_TOKEN may not write there (403: You don't "
        'have the rights to create a model under the namespace "other"); it is ann\'s, its '
        "role write: take one with write access to other/, or a repository in ann/, lab/; "
        + WITHOUT
    )


def test_somebody_elses_repository_is_no_success(hub: Hub) -> None:
    """The client's create_repo(exist_ok=True) takes a repository that can be read for success."""
    hub.create("other/model")
    assert check_problem(Publish(repo_id="other/model")) == (
        "publish.repo_id: other/model: the token in HF_TOKEN may not write there (403: Forbidden: "
        "pass `create_pr=1` to create a Pull Request); it is ann's, its role write: take one with "
        f"write access to other/, or a repository in ann/, lab/; {WITHOUT}"
    )


def test_a_read_token(hub: Hub) -> None:
    hub.create("ann/model")
    hub.role = "read"
    assert check_problem() == (
        "publish.repo_id: ann/model: the token in HF_TOKEN may not write there (403: Forbidden: "
        "pass `create_pr=1` to create a Pull Request); it is ann's, its role read: take one with "
        f"write access to ann/, or a repository in ann/, lab/; {WITHOUT}"
    )


@pytest.mark.parametrize("repo_id", ["ann/a--b", "-ann/model", "ann/model.git", "ann/" + "a" * 97])
def test_a_malformed_name(hub: Hub, repo_id: str) -> None:
    assert check_problem(Publish(repo_id=repo_id)) == (
        f"publish.repo_id: '{repo_id}' is not a valid repository name; expected "
        "your-name/model: letters, digits, - _ and . (neither - nor . at either end, no -- or ..), "
        "not ending in .git, at most 96 of them"
    )
    assert hub.requests == []


def test_offline_mode(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert check_problem() == (
        "publish.repo_id: ann/model: the Hub is out of reach in offline mode; unset HF_HUB_OFFLINE "
        f"and TRANSFORMERS_OFFLINE; {WITHOUT}"
    )


def test_a_dead_endpoint(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert check_problem() == (
        "publish.repo_id: ann/model: cannot reach the Hub at http://127.0.0.1:9 "
        f"({REFUSED}, 3 times); check the network and HF_ENDPOINT; " + WITHOUT
    )


def test_a_public_repository_where_a_private_one_is_asked(hub: Hub) -> None:
    hub.create("ann/model", private=False)
    assert check_problem(Publish(repo_id="ann/model", private=True)) == (
        "publish.private: expected a private repository, but ann/model exists on the Hub and is "
        f"public; make it private at {hub.url}/ann/model/settings, or choose another "
        "repository"
    )


def test_check_tries_again(hub: Hub) -> None:
    hub.faults = [
        Fault("GET", "whoami", status=503),
        Fault("GET", "whoami", status=429, headers={"Retry-After": "7"}),
        Fault("POST", "create", drop=True),
    ]
    waits: list[float] = []
    push.check_access(CHOICES, sleep=waits.append)
    assert waits == [1, 7, 1]
    hub.faults = [Fault("GET", "whoami", status=503, error="maintenance", times=9)]
    assert check_problem() == (
        f"publish.repo_id: ann/model: the Hub at {hub.url} answered 503: maintenance, 3 times; "
        f"{WITHOUT}"
    )


def test_no_answer_at_all(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(transport.TIMEOUT, "read", 0.1)
    hub.faults = [Fault("GET", "whoami", hang=0.3, times=9)]
    assert check_problem() == (
        f"publish.repo_id: ann/model: cannot reach the Hub at {hub.url} ({TIMED_OUT}, "
        f"3 times); check the network and HF_ENDPOINT; {WITHOUT}"
    )


def test_an_answer_that_says_the_token(hub: Hub) -> None:
    hub.faults = [Fault("POST", "create", status=400, error=f"bad Bearer {TOKEN} here")]
    assert check_problem() == (
        f"publish.repo_id: ann/model: the Hub at {hub.url} answered 400: bad Bearer … here; "
        f"{WITHOUT}"
    )


# --- push -----------------------------------------------------------------------------------------


def test_exactly_the_model_goes_up(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = local(folder)
    # transformers 4 writes the special tokens' names once more.
    assert set(expected) - {"special_tokens_map.json"} == {
        "README.md",
        "config.json",
        "identity.json",
        "model.safetensors",
        "modeling_document_classifier.py",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    secret = "hf_" + "Zz9" * 12
    (folder / ".env").write_text(f"HF_TOKEN={secret}")
    (folder / ".git").mkdir()
    (folder / ".git" / "config.json").write_text(secret)
    (folder / "optimizer.bin").write_text(secret)
    (folder / "notes.txt").write_text(secret)
    (folder / "pytorch_model.bin").write_text(secret)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "model.safetensors").write_text(secret)
    (folder / "predictions.jsonl").write_text(secret)

    done = push.push(folder, CHOICES)
    repo = hub.repos["ann/model"]
    assert done.sent == len(expected)
    assert done.commit == repo.head
    assert done.url == f"{hub.url}/ann/model/commit/{repo.head}"
    assert pushed(hub) == expected
    assert repo.messages == ["initial commit", "Upload a document classifier"]
    assert list(hub.blobs.values()) == [expected["model.safetensors"]]
    assert hub.received
    for body in hub.received:
        assert secret.encode() not in body
        assert TOKEN.encode() not in body
    # Nobody is told what runs here.
    assert not hub.asked("GET", "agent-harnesses")
    assert not any("torch" in request.headers.get("user-agent", "") for request in hub.requests)
    out = capsys.readouterr()
    assert out.out.splitlines() == [
        "Skipped, not part of the model: .env, .git, checkpoints, notes.txt, optimizer.bin "
        "and 2 more",
        f"Pushing {len(expected)} of {len(expected)} files (0.1 MB) to {hub.url}/ann/model",
    ]
    assert out.err == ""


def test_pushing_twice_makes_one_commit(hub: Hub, folder: Path) -> None:
    push.check_access(CHOICES)
    first, second = push.push(folder, CHOICES), push.push(folder, CHOICES)
    assert (first.url, first.sent, second.sent) == (second.url, len(local(folder)), 0)
    assert hub.asked("POST", "/commit/") == 1
    (folder / "README.md").write_text(CARD + "more\n")
    received = len(hub.received)
    third = push.push(folder, CHOICES)
    assert third.url.endswith(hub.repos["ann/model"].head)
    assert third.sent == 1
    assert len(hub.repos["ann/model"].commits) == 3
    assert pushed(hub) == local(folder)
    assert hub.asked("PUT", "") == 1
    commit = next(
        body for body in hub.received[received:] if b"lfsFile" in body or b'"file"' in body
    )
    assert [json.loads(line)["key"] for line in commit.splitlines()] == ["header", "file"]


@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        (Fault("POST", "/commit/", status=500), [1]),
        (Fault("POST", "/commit/", status=503, times=4), [1, 2, 4, 8]),
        (Fault("POST", "/commit/", status=429, headers={"Retry-After": "30"}), [30]),
        (Fault("POST", "/commit/", status=429, headers={"Retry-After": "3"}, times=3), [3, 3, 4]),
        (Fault("POST", "/commit/", status=429, headers={"RateLimit": '"api";r=0;t=55'}), [55]),
        (Fault("POST", "/commit/", drop=True), [1]),
        (Fault("POST", "/commit/", cut=1000), [1]),
        (Fault("POST", "/commit/", drop=True, after=True), [1]),
        (Fault("POST", "/commit/", hang=0.7), [1]),
        (Fault("POST", "validate-yaml", status=502, html=True), [1]),
        # These the client itself tries again.
        (Fault("POST", "preupload", status=500), []),
        (Fault("PUT", "storage", status=503), []),
        (Fault("PUT", "storage", status=429, headers={"Retry-After": "0"}), []),
        (Fault("PUT", "storage", cut=5000), []),
        (Fault("GET", "/tree/", status=429, headers={"Retry-After": "0"}), []),
    ],
)
def test_trouble_that_passes(
    hub: Hub,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    waits: list[float],
) -> None:
    monkeypatch.setitem(transport.TIMEOUT, "read", 0.5)
    push.check_access(CHOICES)
    hub.faults = [fault]
    waited: list[float] = []
    push.push(folder, CHOICES, sleep=waited.append)
    assert fault.times == 0
    # The client before 1.0 leaves some to us.
    assert waited == waits or (transport.IS_REQUESTS and waited == [1.0])
    assert pushed(hub) == local(folder)
    assert len(hub.repos["ann/model"].commits) == 2


def test_trouble_that_stays(hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push.check_access(CHOICES)
    hub.faults = [Fault("POST", "/commit/", status=503, error="maintenance", times=9)]
    assert push_problem(folder) == (
        f"ann/model: the Hub at {hub.url} answered 503: maintenance, 5 times; " + again(folder)
    )
    assert hub.asked("POST", "/commit/") == 5
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"the Hub: 503: maintenance; trying again in {wait} s" for wait in (1, 2, 4, 8)
    ]


def test_a_dead_endpoint_at_the_end(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's own waits, in `tree`
    assert push_problem(folder) == (
        "ann/model: cannot reach the Hub at http://127.0.0.1:9 "
        f"({REFUSED}, 5 times); check the network and HF_ENDPOINT; " + again(folder)
    )


@pytest.mark.parametrize(
    ("choices", "more"),
    [
        (Publish(repo_id="ann/model"), ""),
        (Publish(repo_id="ann/model", private=True, revision="next"), " --private --revision next"),
        (Publish(repo_id="ann/model", pull_request=True), " --pull-request"),
    ],
)
def test_the_command_in_the_message_works(
    hub: Hub, folder: Path, script: Script, choices: Publish, more: str
) -> None:
    expected = local(folder)
    (folder / ".env").write_text("SECRET=1")
    hub.faults = [Fault("POST", "/commit/", status=503, times=5)]
    message = push_problem(folder, choices)
    assert message == (
        f"ann/model: the Hub at {hub.url} answered 503, 5 times; " + again(folder, more)
    )
    _, _, command = message.partition("push it again with: python ")
    name, *words = shlex.split(command)
    assert (ROOT / name).samefile(push.SCRIPT)
    code, _, err = script(*words)
    assert (code, err) == (0, "")
    revision = choices.revision or ("refs/pr/1" if choices.pull_request else "main")
    files = hub.files("ann/model", revision)
    files.pop(".gitattributes")
    assert files == expected
    assert hub.repos["ann/model"].private is choices.private


def test_rights_lost_meanwhile(hub: Hub, folder: Path) -> None:
    push.check_access(CHOICES)
    hub.role = "read"
    assert push_problem(folder) == (
        "ann/model: the token in HF_TOKEN may not write there (403: Forbidden: pass `create_pr=1` "
        "to create a Pull Request); it is ann's, its role read: take one with write access to "
        "ann/, or a repository in ann/, lab/; " + again(folder)
    )


def test_a_token_that_expires(hub: Hub, folder: Path) -> None:
    """Between training and the push, or in the middle of one."""
    push.check_access(CHOICES)
    hub.token = "another"
    expired = (
        f"ann/model: the Hub at {hub.url} refused the token in HF_TOKEN (401); make a new one with "
        f"write access at {hub.url}/settings/tokens; {again(folder)}"
    )
    assert push_problem(folder) == expired
    hub.token = TOKEN
    why = "Invalid credentials since noon"
    hub.faults = [
        Fault("POST", "/commit/", status=401, headers={"X-Error-Message": why}, error=why)
    ]
    assert push_problem(folder) == expired.replace("(401)", f"(401: {why})")
    assert push.push(folder, CHOICES).sent == len(local(folder))


def test_a_card_that_the_hub_refuses(hub: Hub, folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    push.check_access(CHOICES)
    assert push_problem(folder) == (
        f"ann/model: the Hub at {hub.url} answered 400: while parsing a flow node; " + again(folder)
    )


def test_what_arrived_is_compared(hub: Hub, folder: Path) -> None:
    push.check_access(CHOICES)
    files = local(folder)
    other = bytes(len(files["model.safetensors"]))
    hub.spoil = {
        "config.json": b"{}",
        "model.safetensors": other,
        "modeling_document_classifier.py": files["modeling_document_classifier.py"].upper(),
        "tokenizer.json": None,
    }
    message = push_problem(folder)
    head = hub.repos["ann/model"].head
    assert message == (
        f"{hub.url}/ann/model/commit/{head} does not hold what was pushed: "
        f"config.json has 2 bytes there, {len(files['config.json']):,} here, "
        "model.safetensors has other content, modeling_document_classifier.py has other content, "
        "tokenizer.json is missing; " + again(folder)
    )


def test_weights_of_an_older_model_do_not_stay(hub: Hub, folder: Path) -> None:
    """An old model.safetensors would be loaded in place of the shards."""
    repo = hub.create("ann/model")
    kept = {"README.md": File(b"by hand", False), "LICENSE": File(b"mine", False)}
    repo.commit({**kept, "model.safetensors": File(b"old", True)}, "old")
    (folder / "README.md").unlink()
    (folder / "identity.json").unlink()  # of the weights in one file
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"classifier.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    push.push(folder, CHOICES)
    assert hub.files("ann/model") == {
        **local(folder),
        **{name: file.content for name, file in kept.items()},
    }


SECRETS = {
    "a Hugging Face token": "hf_" + "Zz9" * 12,
    "an AWS key": "AKIA" + "ABCD" * 4,
    "a GitHub token": "ghp_" + "a1B2" * 9,
    "an API key": "sk-" + "a1B2" * 10,
    "a private key": "-----BEGIN OPENSSH PRIVATE " + "KEY-----",
    "your token": TOKEN,
}


def test_a_secret_in_a_file_stops_the_push(hub: Hub, folder: Path) -> None:
    """Wherever it stands, and no message says it."""
    lines = {kind: f"{CARD}\nKEY={secret}\n" for kind, secret in SECRETS.items()}
    (folder / "README.md").write_text("\n".join(lines.values()))
    config = json.loads((folder / "config.json").read_text())
    config["_name"] = SECRETS["a Hugging Face token"]
    (folder / "config.json").write_text(json.dumps(config))
    message = push_problem(folder)
    rest = "nothing was pushed. Remove it (and revoke it), then push again"
    assert message.splitlines() == [
        *(
            f"{folder / 'README.md'}: line {6 + 7 * number} holds what looks like {kind}; {rest}"
            for number, kind in enumerate(SECRETS)
        ),
        f"{folder / 'config.json'}: line 1 holds what looks like a Hugging Face token; {rest}",
    ]
    assert not any(secret in message for secret in SECRETS.values())
    assert hub.requests == []


def test_no_model_folder(hub: Hub, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in local(folder).keys() - {"config.json", "modeling_document_classifier.py"}:
        (folder / name).unlink()
    assert push_problem(folder) == (
        f"{folder}: not a model folder: expected config.json and model.safetensors, found "
        "config.json, modeling_document_classifier.py"
    )
    assert push_problem(folder / "none") == (
        f"{folder / 'none'}: no such folder; expected a run folder or a model folder"
    )
    run = folder.parent
    (run / "recipe.yaml").write_text("data: {source: x}\n")
    assert push_problem(run) == (
        f"{run}: this run is not finished: it has no results.json; resume it with "
        f"run.resume={run}, then push"
    )


# --- Branches and pull requests -------------------------------------------------------------------


def test_a_branch_is_made_where_it_is_missing(hub: Hub, folder: Path) -> None:
    choices = Publish(repo_id="ann/model", revision="next/try")
    push.check_access(choices)
    assert set(hub.repos["ann/model"].branches) == {"main", "next/try"}
    assert push.push(folder, choices).sent == len(local(folder))
    assert push.push(folder, choices).sent == 0
    assert list(hub.files("ann/model")) == [".gitattributes"]
    assert len(hub.files("ann/model", "next/try")) == len(local(folder)) + 1


def test_a_pull_request_is_gone_on_with(hub: Hub, folder: Path) -> None:
    """In a repository of others, where nothing but that is allowed; never a second one."""
    repo = hub.create("other/model")
    repo.pull("Upload a document classifier", author="bob")
    repo.pull("Upload a document classifier", status="closed")
    choices = Publish(repo_id="other/model", pull_request=True)
    push.check_access(choices)
    hub.faults = [Fault("POST", "/commit/", drop=True, after=True)]
    first = push.push(folder, choices, sleep=lambda seconds: None)
    assert first.url == f"{hub.url}/other/model/discussions/3"
    assert len(repo.pulls) == 3
    assert repo.branches["refs/pr/3"] == first.commit
    again = push.push(folder, choices)
    assert (again.url, again.commit, again.sent) == (first.url, first.commit, 0)
    (folder / "README.md").write_text(CARD + "more\n")
    more = push.push(folder, choices)
    assert (more.url, more.sent) == (f"{hub.url}/other/model/discussions/3", 1)
    assert len(repo.pulls) == 3
    assert list(hub.files("other/model")) == [".gitattributes"]
    assert hub.files("other/model", "refs/pr/3")["README.md"] == (CARD + "more\n").encode()


def test_what_is_there_already_needs_no_pull_request(hub: Hub, folder: Path) -> None:
    push.push(folder, CHOICES)
    done = push.push(folder, Publish(repo_id="ann/model", pull_request=True))
    assert (done.sent, done.commit) == (0, hub.repos["ann/model"].head)
    assert hub.repos["ann/model"].pulls == []


def test_the_card_loads_it_from_where_it_is_pushed(hub: Hub, folder: Path) -> None:
    example = 'classify = pipeline("text-classification", model="{}", trust_remote_code=True)'
    (folder / "README.md").write_text(f"{CARD}\n{example.format('model')}\n")
    push.push(folder, CHOICES)
    assert hub.files("ann/model")["README.md"].decode() == (
        f"{CARD}\n{example.format('ann/model')}\n"
    )
    assert example.format("model") in (folder / "README.md").read_text()
    assert push.push(folder, CHOICES).sent == 0


# --- The environment, as a user sets it -----------------------------------------------------------


def environment(hub: Hub) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    kept["PYTHONPATH"] = str(ROOT)
    return kept | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HOME": str(Path(constants.HF_TOKEN_PATH).parent / "home"),
    }


def lines(change: str, folder: Path) -> str:
    """The table of a dry run in which all files share a fate."""
    sizes = {file.name: f"{file.stat().st_size:,} bytes" for file in sorted(folder.iterdir())}
    wide, long = max(map(len, sizes)), max(map(len, sizes.values()))
    return "".join(f"  {name:<{wide}}  {size:>{long}}  {change}\n" for name, size in sizes.items())


def test_a_dry_run_changes_nothing(hub: Hub, folder: Path, script: Script) -> None:
    code, out, err = script(str(folder), "ann/model", "--dry-run", "--private")
    assert (code, err) == (0, "")
    assert out == (
        f"To {hub.url}/ann/model, which would be created, private:\n" + lines("new", folder)
    )
    assert hub.repos == {}

    choices = Publish(repo_id="ann/model")
    hub.create("ann/model").commit({"dict.txt": File(b"old", False)}, "old")
    assert [(one.name, one.state) for one in push.plan_push(folder, choices).changes][-2:] == [
        ("tokenizer_config.json", "new"),
        ("dict.txt", "removed"),
    ]
    push.push(folder, choices)
    head = hub.repos["ann/model"].head
    (folder / "config.json").write_text("{}")
    plan = push.plan_push(folder, Publish(repo_id="ann/model", revision="next"))
    assert plan.where == (
        f"{hub.url}/ann/model, which is public, on the branch next, which would be created"
    )
    assert {one.name: one.state for one in plan.changes} == {
        **dict.fromkeys(local(folder), "same"),
        "config.json": "changed",
    }
    assert hub.repos["ann/model"].branches == {"main": head}
    assert [request.method for request in hub.requests][-3:] == ["GET", "GET", "GET"]


def test_the_script_says_what_is_wrong(
    hub: Hub, folder: Path, tmp_path: Path, script: Script
) -> None:
    for words, said in (
        ((str(folder), "model"), "error: REPO_ID: 'model' is not a valid repository name; "),
        ((str(tmp_path / "none"), "ann/model"), f"error: {tmp_path / 'none'}: no such folder; "),
        ((str(folder), "other/model"), "error: other/model: the token in HF_TOKEN may not write "),
    ):
        code, out, err = script(*words)
        assert code == 2
        assert err.startswith(said)
        assert err.count("\n") == 1
        assert TOKEN not in out + err


def test_what_was_pushed_is_verified(hub: Hub, folder: Path, script: Script) -> None:
    """At its own commit, whatever came after it."""
    words = (str(folder), "ann/model")
    assert script(*words)[0] == 0
    head = hub.repos["ann/model"].head
    code, out, err = script(*words, "--verify")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"Nothing to push, all is there: {hub.url}/ann/model/commit/{head}",
        f"Verified: downloaded at {head}, the same logits on 16 sample rows",
    ]


def test_the_standard_layout_gets_a_branch_of_its_own(
    hub: Hub, folder: Path, script: Script
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    code, out, _ = script(str(folder), "ann/model", "--onnx", "--verify")
    assert code == 0
    head = hub.repos["ann/model"].branches["onnx"]
    assert f"Published as ONNX: {hub.url}/ann/model/commit/{head}" in out.splitlines()
    assert f"Verified: downloaded at {head}, the same logits on 16 sample rows" in out.splitlines()
    assert hub.files("ann/model").keys() == {*local(folder), ".gitattributes"}
    there = hub.files("ann/model", "onnx").keys()
    assert {"config.json", "tokenizer.json", "onnx/model.onnx"} <= there
    assert {f"{FOLDER}/{name}" for name in ("modules.json", "model.safetensors")} <= there
    assert not [
        name for name in there if name.endswith((".safetensors", ".py")) and "/" not in name
    ]
    card = hub.files("ann/model", "onnx")["README.md"].decode()
    assert card.count('"ann/model", revision="onnx"') == 3
    assert "FOLDER" not in card
    assert "Skipped" not in out
    code, _, err = script(str(folder), "ann/model", "--onnx", "--dry-run")
    assert (code, err) == (2, "error: --onnx: expected it without --dry-run\n")


def test_another_model_there_is_no_success(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = push.push(folder, CHOICES)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][0] += 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "identity.json").unlink()  # else the folder here is refused before it is compared
    assert verify_problem(folder, done) == (
        f"{done.url}: the downloaded model's logits differ from those of {folder} on 16 of 16 "
        "sample rows, by up to 0.001; push that folder again"
    )
    monkeypatch.setattr(verify, "_score_isolated", lambda *given: (["b", "a"], []))
    assert verify_problem(folder, done) == (
        f"{done.url}: the downloaded model has other labels: b, a, not a, b; push {folder} again"
    )


def test_a_model_that_does_not_load_is_no_success(hub: Hub, folder: Path) -> None:
    done = push.push(folder, CHOICES)
    files = hub.repos["ann/model"].commits[done.commit]
    own = files.pop("modeling_document_classifier.py")
    message = verify_problem(folder, done)
    start = f"{done.url}: the downloaded model does not load without this package ("
    assert message.startswith(start)
    assert "modeling_document_classifier.py" in message
    files["modeling_document_classifier.py"] = File(own.content + b"\nimport os", False)
    assert verify_problem(folder, done) == (
        f"{done.url}: modeling_document_classifier.py differs from this version's modelling file, "
        "so the model was not verified; review that file, then verify with --trust-remote-code"
    )


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("config.json", {"auto_map": {"AutoModel": "other/repo--code.Class"}}),
        ("config.json", {"encoder": {"auto_map": {"AutoModel": "other/repo--code.Class"}}}),
        ("config.json", {"custom_pipelines": {"mine": {"impl": "other/repo--code.Class"}}}),
        (
            "tokenizer_config.json",
            {"auto_map": {"AutoTokenizer": [None, "other/repo--code.Class"]}},
        ),
    ],
)
def test_code_of_another_repository_is_refused(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, script: Script, file: str,
    names: dict[str, object],
) -> None:  # fmt: skip
    place = folder / file
    place.write_text(json.dumps(json.loads(place.read_text()) | names))
    code = "other/repo--code.Class"
    problem = (
        f"{folder}: this model loads code of another repository ({file}: {code}), which may change "
        "at any time; nothing was pushed. Copy that code into the folder and name it without the "
        "repository, or push the model as it is with --trust-remote-code"
    )
    assert push_problem(folder) == problem
    assert script(str(folder), "ann/model", "--dry-run") == (2, "", f"error: {problem}\n")
    assert hub.requests == []
    done = push.push(folder, CHOICES, trust_remote_code=True)
    monkeypatch.setattr(verify, "_score_isolated", None)  # nothing is loaded
    assert verify_problem(folder, done) == (
        f"{done.url}: its files load code of another repository ({file}: {code}), so the model "
        "was not verified; review that code, then verify with --trust-remote-code"
    )


def verify_problem(folder: Path, done: push.Pushed) -> str:
    with pytest.raises(InputError) as caught:
        push.verify(folder, CHOICES, done)
    return str(caught.value).replace("(401: Invalid credentials in Authorization header)", "(401)")


def test_a_run_whose_push_failed_loses_nothing(
    hub: Hub, here: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run.dir=out", "train.max_steps=2", "publish.repo_id=ann/tiny")
    hub.faults = [Fault("POST", "/commit/", status=400, error="no room")]
    run_here(*words, code=2)
    said = capsys.readouterr()
    run = here / "out"
    assert said.err == (
        f"error: ann/tiny: the Hub at {hub.url} answered 400: no room; the model is "
        f"safe in {run / 'model'}; push it again with: python {push.SCRIPT} {run} ann/tiny\n"
    )
    assert (run / "report.html").is_file()
    assert results(run)["train"]["steps"] == 2
    code, out, err = script(str(run), "ann/tiny", "--verify")
    assert (code, err) == (0, "")
    rows = 16 + len(results(run)["mistakes"])
    assert out.endswith(f"the same logits on {rows} sample rows\n")
    assert pushed(hub, "ann/tiny") == local(run / "model")
    (run / "results.json").unlink()  # as where it was killed
    assert script(str(run), "ann/tiny")[0] == 2


WITHOUT_PACKAGE = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "finetune":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
try:
    import finetune.modeling.build
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package is there")
from transformers import pipeline
classify = pipeline("text-classification", model="ann/model"{})
print(classify("A team and a goal.")[0]["label"], type(classify.model).__name__)
"""


@pytest.mark.parametrize(
    ("head", "flag", "name"),
    [
        ("linear", ", trust_remote_code=True", "DocumentClassifier"),
        ("native", "", "BertForSequenceClassification"),
    ],
)
def test_it_loads_from_the_hub_without_this_package(
    hub: Hub, saved: Path, tmp_path: Path, head: str, flag: str, name: str
) -> None:
    folder = saved
    if head == "native":
        encoder = saved.parent / "encoder"
        choices = Model(source=str(encoder), head="native", freeze="none")
        classifier = build.build_classifier(str(encoder), choices, ["a", "b"], "eager", 0)
        folder = tmp_path / "model"
        saved_model.save_classifier(
            classifier, pretrained.load_tokenizer(str(encoder), choices), folder
        )
    push.push(folder, CHOICES)
    (tmp_path / "elsewhere").mkdir()
    kept = {key: value for key, value in environment(hub).items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_PACKAGE.format(flag)],
        cwd=tmp_path / "elsewhere",
        env=kept,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    label, loaded = done.stdout.split()
    assert label in ("a", "b")
    assert loaded == name


def test_the_environment_is_honoured(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """HF_ENDPOINT is read when the client is imported; what went up comes down the same."""
    script = f"""
import sys
from pathlib import Path
from finetune.hub import push
from finetune.config.schema import Publish
choices = Publish(repo_id="lab/model", private=True)
push.check_access(choices)
print(push.push(Path({str(folder)!r}), choices).url)
from huggingface_hub import snapshot_download
snapshot_download("lab/model", local_dir={str(tmp_path / "down")!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(hub) | {"HF_DEBUG": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"lab/model/commit/[0-9a-f]{40}\n$", done.stdout)
    assert TOKEN not in done.stdout + done.stderr
    assert hub.repos["lab/model"].private
    down = {p.name: p.read_bytes() for p in (tmp_path / "down").iterdir() if p.is_file()}
    down.pop(".gitattributes")
    assert down == local(folder) == pushed(hub, "lab/model")
