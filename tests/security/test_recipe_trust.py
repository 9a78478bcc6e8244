"""A recipe file that would allow itself to run code from elsewhere, or to publish."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import finetune
from finetune.api.run import Run
from finetune.cli.main import main
from finetune.config import loader
from finetune.config.json_schema import recipe_schema
from finetune.config.trust import GUARDED
from finetune.runtime.errors import InputError
from finetune.tokenization import token_cache
from finetune.training import dry_recipe
from tests.end_to_end.test_push import hub as hub
from tests.support.hub import Hub
from tests.support.runs import RECIPE, reset_accelerate

GRANTS = {
    "model.trust_remote_code": ("true", "--trust"),
    "score.trust_remote_code": ("true", "--trust"),
    "publish.repo_id": ("ann/tiny", "--publish"),
}
METRIC = """
import datasets
import evaluate
open({marker!r}, "w").close()
class Mine(evaluate.Metric):
    def _info(self):
        features = {{"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}}
        return evaluate.MetricInfo(
            description="", citation="", features=datasets.Features(features)
        )
    def _compute(self, predictions, references):
        return {{"mine": 0.5}}
"""


def with_key(key: str, value: object, text: str = RECIPE) -> str:
    """The tiny recipe with one more key."""
    tree = YAML(typ="safe").load(text)
    section, name = key.split(".")
    tree.setdefault(section, {})[name] = value
    return json.dumps(tree)  # which is YAML


def start(*words: str) -> int:
    reset_accelerate()
    return main([*words])


def grant(key: str) -> object:
    return True if GRANTS[key][0] == "true" else GRANTS[key][0]


@pytest.mark.parametrize("key", GRANTS)
@pytest.mark.parametrize("command", ["train", "dry", "find-lr", "inspect", "suspects", "sweep"])
def test_every_command_names_it_at_once(here: Path, capsys, key: str, command: str) -> None:
    (here / "theirs.yaml").write_text(with_key(key, grant(key)))
    (here / "space.yaml").write_text("optim.lr: {log: [1e-3, 0.3]}")
    before = sorted(here.iterdir())
    words = {
        "train": ["train", "theirs.yaml"],
        "dry": ["train", "theirs.yaml", "--dry-run"],
        "suspects": ["suspects", "theirs.yaml", "--output", "out.csv"],
        "sweep": ["sweep", "theirs.yaml", "--space", "space.yaml", "--trials", "1"],
    }.get(command, [command, "theirs.yaml"])
    if key == "publish.repo_id" and command not in ("train", "dry"):
        return  # these publish nothing, whatever a recipe says
    assert start(*words) == 2
    value, option = GRANTS[key]
    said = capsys.readouterr().err
    assert said.startswith(f"error: theirs.yaml: {key}: {value}: this ")
    assert f"add {option} to the command line, or say so beside the file: {key}={value}" in said
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("key", GRANTS)
def test_the_command_line_has_the_say(tmp_path: Path, key: str) -> None:
    from finetune.cli import recipe_argument

    file = tmp_path / "theirs.yaml"
    file.write_text(with_key(key, grant(key)))
    value, option = GRANTS[key]
    section, name = key.split(".")

    def read(*words: str) -> object:
        parser = recipe_argument.recipe_parser("finetune train", "About.", "", publishes=True)
        known, overrides = recipe_argument.parse_recipe(parser, [str(file), *words])
        recipe, _ = recipe_argument.load_recipe(known, overrides)
        return getattr(getattr(recipe, section), name)

    assert read(option) == grant(key)
    assert read(f"{key}={value}") == grant(key)
    assert not read(f"{key}={'null' if option == '--publish' else 'false'}")
    with pytest.raises(InputError, match="a recipe file cannot decide by itself"):
        read("--trust" if option == "--publish" else "optim.lr=0.1")


def test_every_guarded_key_is_attacked_here() -> None:
    assert GRANTS.keys() == GUARDED.keys()


def test_what_a_dry_run_leaves_out_is_shown_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    recipe = loader.load(
        tmp_path / "r.yaml",
        [
            "score.trust_remote_code=true",
            "model.trust_remote_code=true",
            "score.metrics=[x]",
            "score.monitor=loss",
        ],
    )
    harmless = dry_recipe.without_effects(recipe)
    assert not harmless.model.trust_remote_code
    assert not harmless.score.trust_remote_code
    assert dry_recipe.restore(harmless, recipe) == recipe


def test_publish_needs_to_be_told_where(here: Path, capsys) -> None:
    assert start("train", "tiny.yaml", "--publish") == 2
    assert "--publish: expected publish.repo_id in tiny.yaml, found none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "x: &t {trust_remote_code: true}\nmodel: *t",
        "x: &t {trust_remote_code: true}\nmodel: {<<: *t}",
        "model: {source: encoder, 'trust_remote_code': True}",
        'model: {"trust_remote\\x5fcode": true}',
        "{model: {? trust_remote_code : TRUE}}",
    ],
)
def test_yaml_has_no_way_round(tmp_path: Path, text: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(f"data: {{source: a.csv}}\n{text}\n" if text[0] != "{" else text)
    with pytest.raises(InputError, match=r"model\.trust_remote_code: true: this runs Python code"):
        loader.load(file)


def test_a_sweeps_space_cannot_decide_it_either(here: Path, capsys) -> None:
    for key in GRANTS:
        (here / "space.yaml").write_text(f"{key}: {{choice: [true, false]}}")
        assert start("sweep", "tiny.yaml", "--space", "space.yaml", "--trials", "1") == 2
        assert f"space.yaml: {key}: a sweep cannot vary this" in capsys.readouterr().err


@pytest.mark.parametrize("key", GRANTS)
def test_python_keywords_are_the_users_word_and_files_are_not(tmp_path: Path, key: str) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text(with_key(key, grant(key)))
    section, name = key.split(".")
    keys = {section: {name: grant(key)}}
    for load in (
        lambda: finetune.Recipe.load(file),
        lambda: finetune.train(file),
        lambda: finetune.train(str(file), {"optim.lr": 0.1}),
    ):
        with pytest.raises(InputError, match="a recipe file cannot decide by itself") as caught:
            load()
        assert "command line" not in str(caught.value)
    said = [
        finetune.Recipe(data={"source": "a.csv"}, **keys),
        finetune.Recipe.load(file, {key: grant(key)}),
        finetune.Recipe.load(file, [f"{key}={GRANTS[key][0]}"]),
        finetune.Recipe.load(file, keys),
    ]
    assert [getattr(getattr(one, section), name) for one in said] == [grant(key)] * 4


def test_schema_and_help_say_it(capsys) -> None:
    properties = recipe_schema()["$defs"]
    for key, (_, option) in GRANTS.items():
        section, name = key.split(".")
        assert option in properties[section.capitalize()]["properties"][name]["description"]
        with pytest.raises(SystemExit):
            main(["train", "--help", key])
        assert option in capsys.readouterr().out


def test_a_dry_run_runs_no_code_and_writes_nothing(here: Path, capsys, monkeypatch) -> None:
    """Even where the user allows all of it."""
    marker = here / "ran"
    (here / "mine").mkdir()
    (here / "mine" / "mine.py").write_text(METRIC.format(marker=str(marker)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    monkeypatch.setattr(token_cache, "WORTH_CACHING", 0)
    (here / "theirs.yaml").write_text(
        with_key("score.trust_remote_code", True, with_key("score.metrics", ["accuracy", "./mine"]))
    )
    before = sorted(here.rglob("*"))
    assert start("train", "theirs.yaml", "--trust", "--dry-run", "publish.repo_id=ann/x") == 0
    said = capsys.readouterr().out
    assert "Not loaded, as a dry run runs no code from elsewhere: ./mine" in said
    assert "trust_remote_code: true" in said
    assert not marker.exists()
    assert sorted(here.rglob("*")) == before


def test_a_dry_run_of_a_model_with_its_own_code(here: Path, capsys) -> None:
    encoder = here / "own"
    encoder.mkdir()
    for file in (here / "encoder").iterdir():
        (encoder / file.name).write_bytes(file.read_bytes())
    config = json.loads((encoder / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.TheirConfig"}}
    (encoder / "config.json").write_text(json.dumps(config))
    (encoder / "theirs.py").write_text(f"open({str(here / 'ran')!r}, 'w')")
    assert start("train", "tiny.yaml", "--trust", "model.source=own", "--dry-run") == 2
    assert "own Python code, which a dry run does not run" in capsys.readouterr().err
    assert not (here / "ran").exists()


def test_the_first_line_says_where_before_anything_is_there(
    here: Path,
    hub: Hub,
    capsys,
    monkeypatch,
) -> None:
    from finetune.hub import repository

    said: list[str] = []
    create = repository.Repository.ensure_writable
    monkeypatch.setattr(
        repository.Repository,
        "ensure_writable",
        lambda self: (said.append(capsys.readouterr().out), create(self)),
    )
    words = ["run.dir=out", "train.max_steps=2"]
    (here / "theirs.yaml").write_text(with_key("publish.repo_id", "ann/tiny"))
    assert start("train", "theirs.yaml", "--publish", *words) == 0
    assert said[0] == (
        f"Publishes to {hub.url}/ann/tiny after scoring; where it does not exist, it is created "
        "now, public\n"
    )
    assert "ann/tiny" in hub.repos
    # The saved recipe does not publish again by itself, nor does a run that is resumed by it …
    hub.repos.clear()
    saved = str(here / "out" / "recipe.yaml")
    for more in (["run.dir=again"], ["run.resume=out", "run.dir=null"]):
        assert start("train", saved, *more) == 2
        assert "publish.repo_id: ann/tiny: this publishes" in capsys.readouterr().err
        assert hub.repos == {}
    # … until that is said again: the run itself is what it was.
    assert start("train", saved, "run.resume=out", "run.dir=null", "publish.repo_id=null") == 0
    assert hub.repos == {}
    recipe = Run(here / "out").recipe
    assert recipe.publish.repo_id is None


def test_an_evaluated_runs_metrics_need_the_word(here: Path, capsys, monkeypatch) -> None:
    """A run folder may be a stranger's: its recipe decides nothing."""
    (here / "mine").mkdir()
    (here / "mine" / "mine.py").write_text(METRIC.format(marker=str(here / "ran")))
    (here / "theirs.yaml").write_text(
        with_key("score.trust_remote_code", True, with_key("score.metrics", ["accuracy", "./mine"]))
    )
    assert start("train", "theirs.yaml", "--trust", "run.dir=out", "train.max_steps=2") == 0
    assert (here / "ran").exists()
    (here / "ran").unlink()
    test = str(here / "data" / "test.jsonl")
    assert start("evaluate", "out", test, "--output", "scored") == 2
    assert "--trust-remote-code allows that" in capsys.readouterr().err
    assert not (here / "ran").exists()
    words = ["evaluate", "out", test, "--output", "scored", "--trust-remote-code"]
    assert start(*words) == 0
