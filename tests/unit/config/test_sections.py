"""The sections of a recipe: each is strict by itself, and its keys must agree with each other."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from finetune.config import key_hints
from finetune.config.data_section import Data, columns_in
from finetune.config.model_section import Model
from finetune.config.run_sections import Cache, Checkpoint, Publish, Run, Score
from finetune.config.section import Count, Fraction, Section, Seed, conflict
from finetune.config.training_sections import Optim, Stage, Train


def refusal(section, **values):
    """The key that a conflict names, and what is expected of it."""
    with pytest.raises(ValidationError) as caught:
        section(**values)
    [error] = caught.value.errors()
    return error["ctx"]["key"], error["ctx"]["expected"]


class Toy(Section):
    count: Count = 1


@pytest.mark.parametrize("values", [{"count": "1"}, {"count": 1.0}, {"count": 0}, {"other": 1}])
def test_a_section_converts_nothing_and_knows_its_keys(values):
    with pytest.raises(ValidationError):
        Toy(**values)


def test_a_section_is_frozen():
    toy = Toy()
    with pytest.raises(ValidationError, match="frozen"):
        toy.count = 2


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [(Count, 1, 0), (Fraction, 0.5, 1.0), (Fraction, 0.5, 0.0), (Seed, 0, 2**31), (Seed, 0, -1)],
)
def test_ranges_of_common_types(kind, good, bad):
    numbers = TypeAdapter(kind)
    assert numbers.validate_python(good) == good
    with pytest.raises(ValidationError):
        numbers.validate_python(bad)


def test_a_conflict_carries_its_key():
    error = conflict("stride", "no choice")
    assert (error.context, error.message()) == (
        {"key": "stride", "expected": "no choice"},
        "no choice",
    )


@pytest.mark.parametrize(
    ("values", "key", "expected"),
    [
        ({"rows_per_class": 1, "max_train_rows": 1}, "rows_per_class", "null with data.max_tra"),
        ({"test": "none"}, "test", "a split, carve or auto, got 'none'"),
        ({"train": "a", "validation": "a"}, "validation", "another split than data.train"),
        ({"fold": "3/2"}, "fold", "one of two parts or more"),
        ({"template": "plain"}, "template", "a column as {title} in it"),
        ({"template": "{a}", "text": ("a", "b")}, "template", "just the columns of data.text"),
        ({"template": "{a:>3}"}, "template", "columns as {title}"),
        ({"label": "text"}, "label", "another column than data.text"),
        ({"label": ("a",)}, "label", "two columns or more"),
        ({"label": ("a", "b"), "label_separator": ","}, "label_separator", "null where data.label"),
        ({"text_pair": "label"}, "text_pair", "another column than data.text and data.label"),
        ({"text_pair": "b", "truncation": "tail"}, "truncation", "head with data.text_pair"),
        ({"stride": 2}, "stride", "no choice without data.truncation 'windows'"),
    ],
)  # fmt: skip
def test_conflicts_of_data(values, key, expected):
    found = refusal(Data, source="x", **values)
    assert (found[0], found[1][: len(expected)]) == (key, expected)


def test_columns_of_a_document():
    assert Data(source="x").columns() == ("text",)
    assert Data(source="x", text=["b", "a"]).columns() == ("b", "a")
    assert Data(source="x", template="{title}: {body} {title}").columns() == ("title", "body")
    assert columns_in("{{a}} {b}") == ("b",)
    with pytest.raises(ValueError, match="only column names"):
        columns_in("{}")


def test_a_fold_is_a_part_of_many():
    assert Data(source="x").fold_of() is None
    assert Data(source="x", fold="2/5").fold_of() == (2, 5)


@pytest.mark.parametrize("name", ["gb18030", "cp1252", "UTF-16-LE", "latin-1"])
def test_an_encoding_is_one_that_python_knows(name):
    assert Data(source="x", encoding=name).encoding == name
    for wrong in (f"x{name}", "hex", ""):
        key, expected = refusal(Data, source="x", encoding=wrong)
        assert key == "encoding"
        assert expected == f"an encoding such as gb18030 or cp1252, got '{wrong}'"


def test_data_that_never_stops_keeps_other_choices():
    data = Data(source="x", on_undecodable="stop", on_leak="stop", on_empty="keep")
    mild = data.never_stopping()
    assert (mild.on_undecodable, mild.on_leak, mild.on_empty) == ("replace", "warn", "keep")
    assert mild.on_unseen_label == "drop"


def test_a_native_head_pools_by_itself():
    assert refusal(Model, head="native", pooled_norm=1.0)[0] == "pooled_norm"
    assert Model(head="native").pooling == "mean"
    assert Model(freeze=3).freeze == 3
    with pytest.raises(ValidationError):
        Model(freeze=0)


def test_the_monitor_is_a_metric_or_the_loss():
    assert refusal(Score, monitor="recall_macro")[0] == "monitor"
    assert Score(monitor="loss").monitor == "loss"
    assert Score(metrics=["recall_macro"], monitor="recall_macro").metrics == ("recall_macro",)


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache().folder() == tmp_path / "finetune-documents"
    assert Cache(dir="~/mine").folder() == Path.home() / "mine"


def test_a_checkpoint_is_due_by_evaluation_steps_or_minutes():
    assert (Checkpoint().every, Checkpoint(every=7, minutes=None).every) == ("evaluation", 7)
    for values in ({"every": 0}, {"minutes": 0.0}, {"keep": 0}, {"every": "epoch"}):
        with pytest.raises(ValidationError):
            Checkpoint(**values)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"overwrite": True, "resume": "auto"}, "overwrite"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"folds": 3, "seeds": [1]}, "folds"),
    ],
)
def test_conflicts_of_run(values, key):
    assert refusal(Run, **values)[0] == key


def test_a_pull_request_has_no_branch():
    assert refusal(Publish, repo_id="a/b", pull_request=True, revision="dev")[0] == "revision"
    with pytest.raises(ValidationError):
        Publish(repo_id="no-owner")


@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        (Train, {"loss": "focal", "label_smoothing": 0.1}, "label_smoothing"),
        (Train, {"focal_gamma": 1.0}, "focal_gamma"),
        (Train, {"min_steps": 9, "max_steps": 8}, "min_steps"),
        (Train, {"stages": [Stage(min_steps=9)], "max_steps": 8}, "stages"),
        (Train, {"sampling": "balanced", "class_weights": "balanced"}, "class_weights"),
        (Optim, {"betas": [0.5, 0.5]}, "betas"),
        (Optim, {"name": "adamw", "momentum": 0.5}, "momentum"),
        (Optim, {"nesterov": True, "momentum": 0.0}, "nesterov"),
    ],
)
def test_conflicts_of_training(section, values, key):
    assert refusal(section, **values)[0] == key


def test_class_weights_are_of_labels_as_words():
    weights = Train(class_weights={0: 2.0, True: 3.0, "c": 1.0}).class_weights
    assert weights == {"0": 2.0, "true": 3.0, "c": 1.0}


def test_an_optimizer_decides_what_auto_freezes():
    assert (Optim().freezes(), Optim(name="adamw").freezes()) == ("embeddings", "none")


@pytest.mark.parametrize(
    ("key", "section", "hint"),
    [
        ("learning_rate", "train", "; did you mean optim.lr?"),  # other trainers' name
        ("momentum", "train", "; did you mean optim.momentum?"),  # another section's key
        ("batchsize", "train", "; did you mean train.batch_size?"),
        ("momentun", "data", "; did you mean optim.momentum?"),
    ],
)
def test_the_hint_for_an_unknown_key(key, section, hint):
    assert key_hints.key_hint(key, section) == hint


def test_a_key_like_no_other_gets_the_list():
    assert key_hints.key_hint("zzzzzz", "cache") == (
        "; the keys of cache are: frozen_states, tokens, dir, keep, max_gb"
    )
    assert key_hints.closest_key("trust_remote_code") is None  # of two sections


def test_names_of_other_trainers_lead_to_keys_of_today():
    for key in key_hints.NAMES_ELSEWHERE.values():
        section, name = key.split(".")
        assert name in key_hints.SECTIONS[section].model_fields
