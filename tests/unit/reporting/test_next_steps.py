"""What to try next: each rule of thumb speaks where its number says so, and only there."""

import json
import re
import shlex

import pytest

from finetune import run
from finetune.cli import find_label_errors
from finetune.config import loader
from finetune.reporting.next_steps import suggest_next_steps
from finetune.reporting.results_model import read_results
from tests.support.runs import reset_accelerate, run_here
from tests.unit.reporting.made import changed, made_results

FINDING = {"split": "test", "rule": "kept", "places": [], "message": "x", "other": ""}


def list_of(change, log=(), **made):
    return suggest_next_steps(changed(made_results(**made), change), log)


def steps_of(change, log=()):
    return " ".join(list_of(change, log))


def leaks(*counts):
    def change(values):
        values["data"]["findings"] = [
            FINDING | {"kind": kind, "count": count, "other": other}
            for kind, count, other in counts
        ]

    return change


def place(steps, words):
    [found] = [i for i, step in enumerate(steps) if words in step]
    return found


def test_leaks_are_bounded_by_their_share():
    many = leaks(("leak", 3, "train"), ("near leak", 1, "train"), ("near leak", 1, "validation"))
    steps = list_of(many)
    assert steps[0].startswith(
        "Test texts or near-duplicates of them are also in another split (4 in train, 1 in "
        "validation): 55.6\u00a0% of test. This leakage makes the score too high, by at most that "
        "share."
    )
    assert "data.on_leak=drop" in steps[0]

    def few(values):
        leaks(("leak", 7, "train"))(values)
        values["data"]["splits"]["test"]["rows"] = 2000

    steps = list_of(few, test_noise=3.0)
    assert place(steps, "Test texts") > place(steps, "worse than the TF-IDF baseline")


def limited(**counts):
    """Rows that data.max_train_rows and data.max_test_rows left out."""

    def change(values):
        values["data"]["findings"] = [
            FINDING
            | {"kind": "limited", "split": split, "count": count}
            | {"rule": f"9 drawn by seed 0 (data.max_{split}_rows: 9)"}
            for split, count in counts.items()
        ]

    return change


def test_rows_that_were_left_out():
    said = steps_of(limited(train=91, test=11))
    assert not re.search("left .* out", " ".join(list_of(lambda values: None, test_noise=3.0)))
    assert "data.max_test_rows left 11 of 20 test rows out" in said
    assert "data.max_test_rows=null" in said
    said = " ".join(list_of(limited(train=91, test=11), test_noise=3.0))
    assert "data.max_train_rows left 91 of 100 train rows out. Train on more of them: `" in said
    assert "data.max_train_rows=36`" in said
    # What was left out on purpose by label is not meant.
    few = limited(train=91)

    def per_class(values):
        few(values)
        values["data"]["findings"][0]["rule"] = "9 drawn by seed 0 (data.rows_per_class: 3)"

    assert "train rows out" not in " ".join(list_of(per_class, test_noise=3.0))


def test_folds_are_no_advice_where_rows_were_left_out():
    def carved(values, *change):
        values["data"]["splits"]["test"]["origin"] = "split off from x"
        for one in change:
            one(values)

    assert "run.folds=5" in steps_of(carved)
    assert "run.folds=5" not in steps_of(lambda values: carved(values, limited(train=9)))


def test_a_loss_that_still_fell_and_rare_labels():
    log = [
        {"kind": "validation", "step": step, "loss": loss} for step, loss in ((50, 0.9), (60, 0.5))
    ]
    noisy = changed(made_results(test_noise=3.0), lambda values: values.update(baselines=None))
    said = " ".join(suggest_next_steps(noisy, [{"kind": "train", "epoch": 3.0}, *log]))
    assert "Validation loss was still falling at the end (0.900 to 0.500)" in said
    assert "train.epochs=6" in said
    assert "'label 0', 'label 1', 'label 2' have fewer than 30 train rows" in said
    assert "still falling" not in " ".join(suggest_next_steps(noisy, log[:1]))


def test_too_few_steps():
    for planned, is_blamed in ((44, True), (45, False)):  # else patience ended it
        steps = suggest_next_steps(
            changed(
                made_results(test_noise=3.0),
                lambda v, p=planned: v["train"].update(steps=4, planned_steps=p),
            ),
            [],
        )
        assert ("4 steps are too few to train on" in " ".join(steps)) == is_blamed


def test_a_model_that_is_no_better_than_a_guess():
    def guess(values):
        gap = {"difference": -1.0, "interval": [-0.1, 0.1]}
        values["baselines"]["majority"]["paired_difference"] = {"accuracy": gap, "f1_macro": gap}

    steps = list_of(guess, test_noise=3.0)
    assert "it has learned next to nothing. Train longer" in " ".join(steps)


def test_advice_on_one_thing_is_given_once():
    """Few steps, a loss that fell and a weak baseline all come to the length of training."""
    log = [
        {"kind": "validation", "step": step, "loss": loss} for step, loss in ((50, 0.9), (60, 0.5))
    ]

    def all_three(values):
        values["train"].update(steps=4, planned_steps=4, best_step=60)
        gap = {"difference": -1.0, "interval": [-0.1, 0.1]}
        values["baselines"]["majority"]["paired_difference"] = {"accuracy": gap, "f1_macro": gap}

    steps = list_of(all_three, log, test_noise=3.0)
    lengths = [step for step in steps if "train.epochs=" in step]
    assert len(lengths) == 1
    assert "train.epochs=auto train.max_steps=null" in lengths[0]


def test_clipped_steps_are_no_sign_of_a_rate_that_is_too_high():
    assert "clipped" not in steps_of(lambda values: None)  # all of them are

    def diverged(values):
        values["train"]["back_offs"] = [{"diverged_at": 30, "rate_scale": 0.25, "why": "x"}]

    log = [{"kind": "train", "lr": 0.02, "epoch": 1.0}]
    steps = list_of(diverged, log, test_noise=3.0)
    assert "optim.lr=0.005" in " ".join(steps)


def test_conflicts_that_were_not_trained_on():
    def conflicts(split, *more):
        def change(values):
            values["data"]["findings"] = [
                FINDING | {"kind": "conflicting labels", "count": 4, "split": split},
                *(FINDING | {"kind": kind, "count": 9, "split": "train"} for kind in more),
            ]

        return " ".join(list_of(change, test_noise=3.0))

    assert "4 of 9 train rows share their text with a row of another label" in conflicts("train")
    assert "another label" not in conflicts("test")
    assert "another label" not in conflicts("train", "limited")


@pytest.mark.parametrize(("classes", "is_told"), [(2, False), (3, True)])
def test_a_confused_pair_is_news_among_three(classes, is_told):
    def confused(values):
        for one in values["classes"]:
            one["recall"], one["support"] = 0.5, 10
        values["confused_pairs"] = [
            {"label": "label 0", "predicted": "label 1", "rows": 5, "share": 0.5}
        ]

    said = " ".join(list_of(confused, classes=classes))
    told = f"'label 0' predicted as 'label 1' makes up 5 of {5 * classes} mistakes"
    assert (told in said) == is_told


def test_a_model_without_a_mistake_is_told_of_its_test_split_alone():
    perfect = made_results(test_noise=0.0)
    assert perfect.test.metric("accuracy") == 1
    log = [
        {"kind": "validation", "step": step, "loss": loss} for step, loss in ((50, 0.9), (60, 0.5))
    ]
    steps = suggest_next_steps(perfect, log)
    assert [step.split(" is ")[0] for step in steps] == ["The 95 % interval of the accuracy"]


def test_every_command_is_one_of_ours_with_keys_that_exist(tmp_path):
    recipe = tmp_path / "a run" / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text("data: {source: x}\nmodel: {source: y}\n")

    def much(values):
        leaks(("leak", 3, "train"))(values)
        values["train"].update(steps=4, planned_steps=4)
        values["train"]["back_offs"] = [{"diverged_at": 30, "rate_scale": 0.25, "why": "x"}]
        values["data"]["splits"]["test"].update(origin="split off from train", truncated_rows=9)

    results = changed(made_results(test_noise=3.0), much)
    steps = suggest_next_steps(results, [{"kind": "train", "lr": 0.02, "epoch": 1.0}], recipe)
    commands = [one for step in steps for one in re.findall(r"`([^`]*)`", step)]
    assert len(commands) >= 4
    for one in commands:
        program, name, *words = shlex.split(one)
        assert (program, words[0]) == ("finetune", str(recipe))
        if name == "suspects":
            find_label_errors.build_parser().parse_args(words)
        else:
            assert name == "train"
            loader.load(recipe, words[1:])


def test_following_the_advice_helps(here):
    run_here("run.dir=before", "train.max_steps=2")
    log = [json.loads(line) for line in (here / "before/metrics.jsonl").read_text().splitlines()]
    steps = suggest_next_steps(read_results(here / "before"), log, "before/recipe.yaml")
    [step] = [one for one in steps if "are too few to train on" in one]
    [command] = re.findall(r"`([^`]*)`", step)
    asked = shlex.split(command)
    reset_accelerate()
    assert run.main([*asked[asked.index("train") + 1 :], "run.dir=after"]) == 0
    before, after = (read_results(here / name).validation for name in ("before", "after"))
    assert after.loss < before.loss
    assert after.metric("accuracy") >= before.metric("accuracy")
