"""Recipes: strict, all problems at once, and back again through YAML."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config import help, loader
from finetune.config.run_sections import is_folder_name
from finetune.config.schema import SECTIONS, Data, Optim, Recipe, Run, Train
from finetune.runtime.commands import command
from finetune.runtime.errors import InputError

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write text as r.yaml and load it by that short name."""
    monkeypatch.chdir(tmp_path)

    def load(text, *words):
        Path("r.yaml").write_text(text, encoding="utf-8")
        return loader.load("r.yaml", words)

    return load


def problems_of(load, text, *words):
    with pytest.raises(InputError) as caught:
        load(text, *words)
    return list(caught.value.problems)


def test_defaults_file_words_in_that_order(written):
    recipe = written("data: {source: x}\noptim: {lr: 0.5, momentum: 0.5}", "optim.lr=0.25")
    assert (recipe.optim.lr, recipe.optim.momentum, recipe.optim.name) == (0.25, 0.5, "sgd")


def test_what_defaults_leave_open_is_resolved(written):
    sgd = written("data: {source: x}")
    assert (sgd.optim.lr, sgd.model.freeze, sgd.run.name) == (0.03, "embeddings", "r")
    adamw = written("data: {source: x}\noptim: {name: adamw}")
    assert (adamw.optim.lr, adamw.model.freeze) == (2e-4, "none")


def test_yaml_is_1_2(written):
    recipe = written("data: {source: no, text: on}\noptim: {lr: 3e-4}")
    assert (recipe.data.source, recipe.data.text, recipe.optim.lr) == ("no", "on", 3e-4)


def test_every_problem_in_one_report(written):
    text = """
data:
  source: x
  txt: body
optim:
  lr: fast
  momentum: 0.5
  momentum: 0.9
train:
  epochs: 0
  lr: 1
  learning_rate: 1
model: {freeze: 0, pooling: max}
score: {metrics: [accuracy, 3]}
modell: {}
"""
    assert problems_of(written, text, "--optim.lr=3", "--seed", "run.seed=-1", "x.y=1") == [
        "r.yaml: optim.momentum: set twice, on lines 7 and 8; keep one of them",
        "--optim.lr=3: expected section.key=value; write optim.lr=3",
        "--seed: expected section.key=value; write run.seed=VALUE",
        "x.y=1: no section 'x'; the sections are: data, model, train, distil, optim, score, "
        "checkpoint, cache, run, publish",
        "r.yaml: modell: no such section; did you mean 'model'?",
        "r.yaml: data.txt: no such key; did you mean data.text?",
        "r.yaml: model.pooling: expected mean or cls, got 'max'",
        "r.yaml: model.freeze: expected auto, none, embeddings or encoder or a whole number of "
        "at least 1, got 0",
        "r.yaml: train.epochs: expected a whole number of at least 1 or auto, got 0",
        "r.yaml: train.lr: no such key; did you mean optim.lr?",
        "r.yaml: train.learning_rate: no such key; did you mean optim.lr?",
        "r.yaml: optim.lr: expected a number above 0 or auto, got 'fast'",
        "r.yaml: score.metrics: expected a list, each a word, got 3 at position 2",
        "command line: run.seed: expected a whole number of at least 0 and below "
        "2147483648, got -1",
    ]


@pytest.mark.parametrize(
    ("text", "words", "problem"),
    [
        ("", (), "r.yaml: the recipe is empty; it needs at least data.source"),
        (
            "[1]",
            (),
            "r.yaml: this is not a recipe (YAML with sections such as data:); it begins with [1]",
        ),
        ("data: 3", ("data.source=x",), "r.yaml: data: expected a section of keys, got 3"),
        (
            "data: {source: x",
            (),
            "r.yaml: line 1: not valid YAML: expected ',' or '}', but got '<stream end>'; "
            "check the indentation, brackets and quotes of that line",
        ),
        (
            "data: {source: x}",
            ("data.labels=[a, b", "data.text=[CLS] x"),
            "data.labels=[a, b: not valid YAML: expected ',' or ']', but got '<stream end>'",
        ),
        ("data: {source: x}", ("lr",), "lr: expected section.key=value; write optim.lr=VALUE"),
        (
            "data: {source: x}",
            ("optim.nesterov=true", "optim.momentum=0"),
            "command line: optim.nesterov: expected momentum above 0, got optim.momentum 0.0",
        ),
        (
            "data: {source: x}\noptim: {name: adamw, momentum: 0.5}",
            (),
            "r.yaml: optim.momentum: expected 0.9 with optim.name 'adamw' (it is of sgd)",
        ),
        (
            "data: {source: x, validation_fraction: 0.5, test_fraction: 0.6}",
            (),
            "r.yaml: data.validation_fraction: expected together with data.test_fraction below 1, "
            "got 0.5 + 0.6",
        ),
        (
            "data: {source: x, validation: test, test: test}",
            (),
            "r.yaml: data.test: expected another split than data.validation, got 'test' for both; "
            "test is never used for tuning",
        ),
        (
            "data: {source: x}\nmodel: {head: native, pooling: cls}",
            (),
            "r.yaml: model.pooling: expected no choice with model.head 'native', whose class pools "
            "in its own way, got 'cls'",
        ),
        (
            "data: {source: x}\nscore: {monitor: f1}",
            (),
            "r.yaml: score.monitor: expected one of score.metrics (accuracy, f1_macro) or loss, "
            "got 'f1'",
        ),
        (
            "data: {source: x}",
            ("model.keep_layers=[]",),
            "command line: model.keep_layers: expected a whole number of at least 1 or a list of "
            "one or more, each a whole number of at least 0, got []",
        ),
        (
            "data: {source: x, labels: [a, b, a]}",
            (),
            "r.yaml: data.labels: expected each name once, got ['a', 'b', 'a']",
        ),
        (
            "data: {source: x, labels: [a, ' ', '']}",
            (),
            "r.yaml: data.labels: expected names that are not blank, got ['a', ' ', '']",
        ),
        *(
            (
                f"data: {{source: x}}\nrun: {{name: '{name}'}}",
                (),
                "r.yaml: run.name: expected a name that every system takes for a folder (Windows "
                'refuses < > : " \\ | ? *, names such as CON and NUL, and a dot or a space at the '
                f"end), got '{name}'",
            )
            for name in ("bbc 12:30", "a/NUL.txt", "news.", "com1")
        ),
        *(
            (
                f"data: {{source: x}}\nrun: {{name: '{name}'}}",
                (),
                "r.yaml: run.name: expected a name below the folder runs/, without '.', '..' or a "
                f"'/' at its beginning (run.dir names any folder), got '{name}'",
            )
            for name in ("../elsewhere", "../../up", "/tmp/x", "a/./b", "..")
        ),
        *(
            (
                f"data: {{source: x}}\nrun: {{name: '{name}'}}",
                (),
                "r.yaml: run.name: expected a name without a '/' at its end, and never two in a "
                f"row, got '{name}'",
            )
            for name in ("a/", "a//b")
        ),
        (
            "data: {source: x}\nscore: {metrics: [accuracy, rank_mae]}",
            (),
            "r.yaml: score.metrics: expected no rank_mae without the order of the labels, which "
            "data.task 'ordered' or data.labels gives",
        ),
        (
            "data: {source: x, task: ordered}\npublish: {onnx: true}",
            (),
            "r.yaml: publish.onnx: expected false with data.task 'ordered', as the libraries that "
            "the branch is for have no head for it, got true",
        ),
    ],
)
def test_one_problem(written, text, words, problem):
    assert problems_of(written, text, *words) == [problem]


@pytest.mark.parametrize("name", ["bbc_news", "teams/a", "Über uns", "console", "v1.2", ".hidden"])
def test_names_of_runs(written, name):
    assert written(f"data: {{source: x}}\nrun: {{name: '{name}'}}").run.name == name


def test_a_missing_source_says_what_it_is(written):
    [problem] = problems_of(written, "run: {seed: 1}")
    assert problem.startswith("r.yaml: data.source: missing; expected a word: Hub id, file (csv")


def test_a_data_file_in_the_place_of_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my rows.csv").write_text("text,label\na,b\n")
    with pytest.raises(InputError) as caught:
        loader.load("my rows.csv")
    assert str(caught.value) == (
        "my rows.csv: this is not a recipe (YAML with sections such as data:); a recipe names a "
        f"data file as data.source ({command('new', 'my rows.csv')} writes one)"
    )


def test_a_missing_file_names_the_nearest(written, tmp_path):
    written("data: {source: x}")
    with pytest.raises(InputError) as caught:
        loader.load("s.yaml")
    assert str(caught.value) == "s.yaml: no such recipe file; did you mean 'r.yaml'?"


def test_words_keep_words(written):
    recipe = written(
        "data: {source: x}", "data.revision=12", "data.source=./a: b#c", "run.dir=null"
    )
    assert (recipe.data.revision, recipe.data.source, recipe.run.dir) == ("12", "./a: b#c", None)


@pytest.mark.parametrize("key", ["run.dir", "data.id", "optim.lr", "data.text"])
def test_an_empty_value_is_refused(written, key):
    """As a shell makes one of a variable that is not set: it is not taken for null."""
    assert problems_of(written, "data: {source: x}", f"{key}=") == [
        f"{key}=: expected a value after '='; {key}=null sets none"
    ]


def test_help_lists_the_keys_of_each_section():
    listed = " ".join(help.list_keys().split())
    for name, part in SECTIONS.items():
        assert f" {name} {', '.join(part.model_fields)}" in listed


@pytest.mark.parametrize("topic", ["lr", "optim.lr"])
def test_help_explains_one_key(topic):
    lines = help.explain_keys(topic).splitlines()
    assert lines[0] == "  optim.lr  (a number above 0 or auto or null; default null)"
    assert all(line.startswith("      ") for line in lines[1:])


def test_help_explains_a_section_and_all():
    assert help.explain_keys("all") == help.recipe_help()
    for name, part in SECTIONS.items():
        text = help.explain_keys(name)
        assert text.startswith(f"{name}: {part.__doc__}")
        assert text in help.recipe_help()
    several = help.explain_keys("revision").splitlines()
    heads = [line.split()[0] for line in several if not line.startswith("   ")]
    assert heads == ["data.revision", "model.revision", "publish.revision"]
    assert "    lr  (a number above 0 or auto or null; default null)" in help.explain_keys("stages")


@pytest.mark.parametrize(
    ("topic", "hint"),
    [
        ("learning_rate", "did you mean 'optim.lr'?"),
        ("leraning-rate", "did you mean 'optim.lr'?"),
        ("optim.lrr", "did you mean 'optim.lr'?"),
        ("dta", "did you mean 'data'?"),
        ("xyzzy", f"the sections are: {', '.join(SECTIONS)}"),
    ],
)
def test_help_on_what_is_no_key_names_the_closest(topic, hint):
    with pytest.raises(InputError) as caught:
        help.explain_keys(topic)
    assert str(caught.value) == f"{topic}: no such section or key of a recipe; {hint}"


def test_words_with_a_pattern_are_described_by_an_example():
    fields = {name: part.model_fields for name, part in SECTIONS.items()}
    described = {
        name: help.describe_field(fields[section][name])
        for section, name in (("data", "fold"), ("publish", "repo_id"), ("publish", "license"))
    }
    assert described == {
        "fold": "a word such as 2/5 or null",
        "repo_id": "a word such as OWNER/NAME or null",
        "license": "a word such as apache-2.0 or null",
    }
    for part in SECTIONS.values():
        for field in part.model_fields.values():
            patterns = [m for m in field.metadata if getattr(m, "pattern", None)]
            assert bool(patterns) == bool(field.examples)


def test_help_names_every_field():
    text = help.recipe_help()
    keys = [f"{name}.{key}" for name, part in SECTIONS.items() for key in part.model_fields]
    assert len(keys) > 50
    assert [key for key in keys if f"  {key}  (" not in text] == []
    assert all(
        field.description for part in SECTIONS.values() for field in part.model_fields.values()
    )


@settings(deadline=None)
@given(
    st.builds(
        Recipe,
        data=st.builds(
            Data,
            source=st.text(min_size=1),
            text=st.text(),
            validation_fraction=st.floats(0.01, 0.4),
            test_fraction=st.floats(0.01, 0.4),
            train=st.just("train"),
            validation=st.just("auto"),
            test=st.just("auto"),
            labels=st.none()
            | st.lists(st.text().filter(str.strip), min_size=1, unique=True).map(tuple),
        ),
        train=st.builds(Train, epochs=st.integers(1, 10**6)),
        optim=st.builds(
            Optim,
            name=st.just("sgd"),
            lr=st.floats(1e-12, 1e6),
            momentum=st.floats(0.01, 0.99),
            betas=st.just((0.9, 0.999)),
            eps=st.just(1e-8),
        ),
        run=st.builds(Run, name=st.text(min_size=1).filter(is_folder_name)),
    )
)
def test_yaml_round_trip(tmp_path_factory, recipe):
    """What `to_yaml` writes, `load` reads back to the same recipe."""
    file = tmp_path_factory.mktemp("round") / "r.yaml"
    file.write_text(loader.to_yaml(recipe), encoding="utf-8")
    loaded = loader.load(file)
    resolved = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(
                update={
                    "freeze": "embeddings" if recipe.model.freeze == "auto" else recipe.model.freeze
                }
            )
        }
    )
    assert loaded == resolved


def test_every_shipped_recipe_loads():
    files = sorted(RECIPES.glob("*.yaml"))
    names = {file.stem for file in files}
    assert names >= {
        "ag_news", "imdb", "sst2", "trec", "dbpedia", "yelp_polarity", "yelp_full", "banking77",
        "emotion", "20_newsgroups", "bbc_news", "bbc_windows", "rte",
    }  # fmt: skip
    for file in files:
        loader.load(file)
        header = file.read_text(encoding="utf-8").split("data:")[0]
        assert f"#     finetune train {file.stem}" in header
        assert "TO BE MEASURED" not in header
        assert "Measured" in header or "not been run here" in header


@pytest.mark.parametrize("source", ["rows", "rows/train.csv", "./rows"])
def test_paths_are_looked_for_beside_the_recipe_too(tmp_path, monkeypatch, source):
    home, here = tmp_path / "project", tmp_path / "elsewhere"
    here.mkdir()
    (home / "rows").mkdir(parents=True)
    (home / "rows" / "train.csv").write_text("text,label\n")
    (home / "r.yaml").write_text(f"data: {{source: {source}}}\nmodel: {{source: owner/name}}\n")
    monkeypatch.chdir(here)
    recipe = loader.load(home / "r.yaml")
    assert recipe.data.source == str(home / source)
    assert recipe.model.source == "owner/name"
    again = loader.load(home / "r.yaml", ["data.source=package:a/rows", "model.source=rows"])
    assert again.data.source == "package:a/rows"
    assert again.model.source == str(home / "rows")
    (home / "auto").mkdir()
    for word, found in (("auto", "auto"), ("rows", str(home / "rows"))):
        asked = loader.load(home / "r.yaml", [f"score.out_of_scope={word}"])
        assert asked.score.out_of_scope == found
    (here / "rows").mkdir()
    (here / "rows" / "train.csv").write_text("text,label\n")
    assert loader.load(home / "r.yaml").data.source == source  # the current folder comes first


@pytest.mark.parametrize("mark", ["results.json", "metrics.jsonl", "preflight.json", "checkpoints"])
def test_what_lies_in_a_run_is_not_meant_by_its_recipe(tmp_path, monkeypatch, mark):
    run, here = tmp_path / "run", tmp_path / "elsewhere"
    here.mkdir()
    (run / "model").mkdir(parents=True)
    (run / mark).touch()
    (run / "recipe.yaml").write_text("data: {source: model}\nmodel: {source: model}\n")
    monkeypatch.chdir(here)
    recipe = loader.load(run / "recipe.yaml")
    assert (recipe.data.source, recipe.model.source) == ("model", "model")
