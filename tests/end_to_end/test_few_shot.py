"""Few rows: so many of each label, drawn by a seed, and steps as the measure of a run."""

import json
import os
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from finetune.config import loader, schema
from finetune.data import prepare
from finetune.data.sources import load_rows
from finetune.evaluation import thresholds
from finetune.inference.classifier import Classifier
from finetune.runtime.errors import InputError
from finetune.training import sampling, schedule
from tests.support import forks
from tests.support.runs import assert_same, in_step, lines, newest, results, run_here, stopped_at

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=120).map(np.array)
SETS = st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=60).map(np.array)

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def drawn(most, seed):
    choices = schema.Data(source="data", rows_per_class=most, split_seed=seed)
    return prepare.prepare_corpus(load_rows(choices), choices)


def test_so_many_rows_of_each_label(here):
    corpus = drawn(8, 0)
    assert Counter(corpus.train.labels.tolist()) == {0: 8, 1: 8, 2: 8}
    assert corpus.train.texts == drawn(8, 0).train.texts
    assert set(corpus.train.texts) != set(drawn(8, 1).train.texts)
    rules = [finding.rule for finding in corpus.findings]
    assert "24 drawn by seed 0 (data.rows_per_class: 8)" in rules
    # A smaller draw is a part of a larger one of the same seed.
    assert set(drawn(4, 0).train.texts) < set(corpus.train.texts)
    assert len(drawn(500, 0).train) == 93
    assert np.bincount(corpus.validation.labels).sum() == 13


def test_steps_are_the_measure(here, capsys):
    run_here("run.dir=run", "data.rows_per_class=4", "train.min_steps=7", "score.every=4")
    assert results(here / "run")["train"]["steps"] == 7
    assert "7 steps of 8 documents, 3 epochs, or as many as 7 steps take; sgd" in (
        " ".join(capsys.readouterr().out.split())
    )
    run_here("run.dir=long", "train.min_steps=7", "train.epochs=1")
    assert results(here / "long")["train"]["steps"] == 12


@QUICK
@given(st.integers(1, 5000), st.integers(1, 64))
def test_few_rows_make_enough_steps(rows, batch_size):
    train = schema.Train(batch_size=batch_size)
    per_epoch, steps = (
        sampling.steps_per_epoch(rows, batch_size),
        schedule.total_steps(rows, train),
    )
    assert steps == per_epoch * schedule.resolve_epochs(rows, train)
    if 3 * per_epoch >= schema.LEAST_STEPS:
        assert (schedule.resolve_epochs(rows, train), schedule.resolve_sampling(rows, train)) == (
            3,
            "uniform",
        )
    else:
        assert schema.LEAST_STEPS <= steps < schema.LEAST_STEPS + 3 * per_epoch
        assert schedule.resolve_sampling(rows, train) == "stratified"
        per_round = per_epoch * schedule.epochs_per_round(rows, train)
        recipe = schema.Recipe(data=schema.Data(source="x"), train=train)
        planned = schedule.Schedule.of(recipe, rows)
        assert planned.evaluate_every == per_round
        assert sum(planned.is_evaluated(done) for done in range(1, steps + 1)) == 3


def test_fewer_steps_may_be_enough():
    """Epochs are still as many as it takes; and where rows are many, as without."""
    train = schema.Train(min_steps=15)
    for rows, steps, how in (
        (32, 15, "stratified"), (64, 18, "stratified"), (256, 24, "uniform"), (999, 96, "uniform")
    ):  # fmt: skip
        assert (schedule.total_steps(rows, train), schedule.resolve_sampling(rows, train)) == (
            steps,
            how,
        )
    assert schedule.total_steps(1000, schema.Train(min_steps=100)) == 100


def test_a_recipe_that_names_its_epochs_has_them():
    train = schema.Train(epochs=1)
    assert (schedule.total_steps(32, train), schedule.resolve_sampling(32, train)) == (1, "uniform")
    assert schedule.total_steps(32, schema.Train(max_steps=5)) == 5
    assert schedule.total_steps(32, schema.Train(min_steps=60)) == 60


def test_few_rows_by_default(here, capsys):
    run_here("run.dir=run", "data.rows_per_class=4", "train.epochs=auto", "score.every=epoch")
    assert (
        "48 steps of 6 documents (12 rows in equal batches), 24 epochs (at least 45 steps); sgd"
        in (" ".join(capsys.readouterr().out.split()))
    )
    assert [line["step"] for line in lines(here / "run", "validation")] == [16, 32, 48]


@QUICK
@given(LABELS, st.integers(1, 40), st.integers(0, 3), st.integers(0, 3))
def test_each_step_has_its_share_of_each_class(labels, batch_size, seed, epoch):
    steps = sampling.epoch_steps(labels, "stratified", batch_size, seed, epoch)
    assert len(steps) == sampling.steps_per_epoch(len(labels), batch_size)
    assert sorted(np.concatenate(steps)) == list(range(len(labels)))
    sizes = {len(rows) for rows in steps}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    for c in range(6):
        counts = [int((labels[rows] == c).sum()) for rows in steps]
        assert max(counts) - min(counts) <= 1


@QUICK
@given(SETS, st.integers(1, 20))
def test_of_several_labels_each_row_comes_once(labels, batch_size):
    steps = sampling.epoch_steps(labels, "stratified", batch_size, 0, 0)
    assert sorted(np.concatenate(steps)) == list(range(len(labels)))


def test_a_row_is_as_likely_in_one_step_as_in_another():
    labels, many = np.array([0] * 3 + [1] * 8), 3000
    seen = np.zeros((3, len(labels)))
    for epoch in range(many):
        for step, rows in enumerate(sampling.epoch_steps(labels, "stratified", 4, 0, epoch)):
            seen[step, rows] += 1 / len(rows)  # its weight in the step's mean loss
    # Each row has the same, 1/11, but for chance: of a share of 1/3, 0.0086, over some 4 rows.
    assert np.abs(seen / many - 1 / 11).max() < 5 * 0.0086 / 3


def few(folder, rows=60):
    """A folder of so few documents, without splits."""
    lines = (folder / "data" / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "few").mkdir()
    (folder / "few" / "train.jsonl").write_text("".join(lines[:rows]))
    return "data.source=few"


def test_too_few_rows_to_tune_by(here):
    def splits(**keys):
        choices = schema.Data(source="few", **keys)
        corpus = prepare.prepare_corpus(load_rows(choices), choices)
        return [len(split) for split in (corpus.train, corpus.validation, corpus.test)], corpus

    few(here)
    sizes, corpus = splits()
    assert sizes == [54, 0, 6]
    assert corpus.validation.origin == "none, as 10 % of 60 rows is 6, fewer than the 10 needed"
    assert corpus.splits() == (corpus.train, corpus.test)
    assert splits(validation="carve")[0] == [48, 6, 6]
    assert splits(validation_fraction=0.2)[0] == [42, 12, 6]
    # The cut of test is the same, whatever becomes of validation.
    tests = {tuple(splits(validation=v)[1].test.texts) for v in ("auto", "carve", "none")}
    assert len(tests) == 1
    choices = schema.Data(source="data", validation="none")
    assert len(prepare.prepare_corpus(load_rows(choices), choices).validation) == 0


def test_a_run_without_validation(here, capsys):
    words = few(here), "train.epochs=auto", "score.every=epoch", "checkpoint.keep=9"
    run_here("run.dir=run", *words)
    said = " ".join(capsys.readouterr().out.split())
    assert "validation: none, as 10 % of 60 rows is 6, fewer than the 10 needed" in said
    assert "rows 6" in said
    found = results(here / "run")
    assert (found["validation"]["rows"], found["validation"]["labelled"]) == (0, False)
    assert found["train"]["best_step"] == found["train"]["steps"]
    assert found["calibration"]["temperature"] == 1
    assert found["calibration"]["validation"] is None
    assert found["abstention"] is None
    assert found["test"]["rows"] == 6
    assert lines(here / "run", "validation") == []
    page = (here / "run" / "report.html").read_text()
    assert "There was no validation split: the model is that of the last step" in page
    card = (here / "run" / "model" / "README.md").read_text()
    assert "The model is that of the last step, as there was no validation split" in card
    # The folder holds the last step's weights, as its checkpoint has them.
    last = load_file(newest(here / "run") / "state.safetensors")
    kept = load_file(here / "run" / "model" / "model.safetensors")
    name = "classifier.weight"
    [there] = [key for key in last if key.endswith(name) and last[key].shape == kept[name].shape][
        :1
    ]
    assert torch.equal(last[there], kept[name])
    # Taken up again, it comes out the same.
    again = stopped_at(here / "run", here / "again", 50)
    run_here("run.resume=again", *words)
    assert_same(here / "run", again)


@pytest.mark.parametrize("validated", [False, True])
def test_made_shorter_than_it_had_come(here, validated):
    """Where no model was kept yet, that of the last step done is."""
    words = "score.every=99", *([] if validated else ["data.validation=none"])

    def stopped(step, *more):
        with pytest.MonkeyPatch.context() as patch:
            in_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
            run_here(*words, *more, code=75)
        return load_file(newest(here / "run") / "state.safetensors")

    def shorter(steps):
        run_here("run.resume=run", *words, f"train.max_steps={steps}")
        found = results(here / "run")
        return found["train"]["steps"], found["train"]["best_step"]

    state = stopped(3, "run.dir=run")
    assert shorter(2) == (3, 3)
    if not validated:  # the model of the last step, whatever was kept before
        state = stopped(6, "run.resume=run")
        assert shorter(5) == (6, 6)
        kept = load_file(here / "run" / "model" / "model.safetensors")
        assert torch.equal(state["model/classifier.weight"], kept["classifier.weight"])


def test_what_only_validation_could_decide(here, capsys):
    run_here("run.dir=run", few(here), "score.patience=3", "score.target_accuracy=0.9", code=2)
    none = "there is no validation split (none, as 10 % of 60 rows is 6, fewer than the 10 needed)"
    assert capsys.readouterr().err == (
        f"error: score.patience: {none}; set data.validation=carve, or leave score.patience out, "
        "as nothing tells when to stop\n"
        f"error: score.target_accuracy: {none}; set data.validation=carve, or leave "
        "score.target_accuracy out, as no threshold can be chosen\n"
    )
    run_here("data.source=few", "train.on_divergence=back_off", "--dry-run")
    assert "! train.on_divergence: back_off sees losses that are not finite only" in (
        " ".join(capsys.readouterr().out.split())
    )
    with pytest.raises(InputError, match=r"data.test: expected a split, carve or auto, got 'none'"):
        loader.load("tiny.yaml", ["data.test=none"])


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def chances_of_train(folder):
    """What the saved model makes of train, and train's labels: by `classifier.Classifier`."""
    train = prepare.prepare_corpus(*told("few")).train
    said = Classifier(folder / "model", precision="fp32", threads=1)
    given = said([*train.texts], probabilities=True)
    return np.array([[*one["probabilities"].values()] for one in given]), train.labels


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("train.class_weights=balanced",),
        ("train.sampling=balanced",),
        ("train.loss=generalised_cross_entropy",),
    ],
)
def test_of_several_labels_a_run_begins_at_their_priors(here, words):
    """But where weights, the draw or the loss make other shares of them."""
    write_several(here)
    run_here("run.dir=run", "data.source=few", "train.max_steps=1", "train.log_every=1", *words)
    labels = prepare.prepare_corpus(*told("few")).train.labels
    priors = (labels.sum(axis=0) + 0.5) / (len(labels) + 1)
    assert min(priors) < 0.25
    tensors = load_file(here / "run" / "model" / "model.safetensors")
    started = np.zeros(4) if words else np.log(priors / (1 - priors))
    # One clipped step away, at a rate of 0.1.
    assert np.allclose(tensors["classifier.bias"], started, atol=0.1)


def write_several(here):
    lines = (here / "data" / "train.jsonl").read_text().splitlines()[:60]
    (here / "few").mkdir()
    with (here / "few" / "train.jsonl").open("w") as out:
        for i, line in enumerate(lines):
            row = json.loads(line)
            out.write(json.dumps(row | {"label": [row["label"], "d"][: 1 + (i % 5 == 0)]}) + "\n")


def test_of_several_labels_folds_are_scored_by_thresholds_of_others(here):
    write_several(here)
    run_here("run.dir=run", "data.source=few", "train.epochs=2", "run.folds=2")
    whole = results(here / "run" / "all")
    [saved] = {*whole["thresholds"].values()}
    lines = lines_of(here / "run" / "all" / "predictions" / "test.jsonl")
    names = [*whole["thresholds"]]
    chances = np.array([[*one["probabilities"].values()] for one in lines])
    labels = np.array([[int(n in one["label"]) for n in names] for one in lines])
    assert thresholds.choose_shared(chances, labels)[0] == saved
    corpus = prepare.prepare_corpus(*told("few"), folds=2)
    assert corpus.train.labels.tolist() == labels.tolist()
    for part in range(2):
        here_, others = corpus.folds == part, corpus.folds != part
        cuts = thresholds.choose_shared(chances[others], labels[others])
        for chance, line in zip(chances[here_], np.array(lines)[here_], strict=True):
            given = [name for name, p, cut in zip(names, chance, cuts, strict=True) if p >= cut]
            assert line["predicted"] == given


def told(source):
    choices = schema.Data(source=source)
    return load_rows(choices), choices


def test_of_several_labels_without_validation(here):
    write_several(here)
    run_here("run.dir=run", "data.source=few", "train.epochs=2")
    found = results(here / "run")
    assert found["validation"]["rows"] == 0
    cut = thresholds.choose_shared(*chances_of_train(here / "run"))
    assert [*found["thresholds"].values()] == cut.tolist()
    assert cut[0] != 0.5
    for line in lines_of(here / "run" / "predictions" / "test.jsonl"):
        pairs = zip(found["thresholds"], line["probabilities"].values(), strict=True)
        given = [name for name, chance in pairs if chance >= cut[0]]
        assert line["predicted"] == given
    config = json.loads((here / "run" / "model" / "config.json").read_text())
    assert config["document"]["thresholds"] == [*found["thresholds"].values()]
    assert (
        "A label is predicted at a probability of 0." in (here / "run" / "report.html").read_text()
    )
    assert "f1_micro" in found["test"]


def test_the_bench(here, tmp_path):
    """Each side trains on the same drawn rows, and what stands in its file is not run again."""
    words = [
        *("data", "--encoder", "encoder"),
        *("--rows", "4", "--draws", "1", "--test-rows", "10", "--sides", "ours", "probe", "tfidf"),
        *("--json", tmp_path / "bench.json", "train.max_steps=3", "data.max_length=32"),
    ]

    def bench():
        return forks.run("scripts.bench.bench_few_shot", *words, cwd=here)

    done = bench()
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [one["side"] for one in found] == ["ours", "probe", "tfidf"]
    assert {one["draw"] for one in found} == {1}
    assert all(0 <= one["accuracy"] <= 1 < one["whole"] for one in found)
    assert found[0]["steps"] == 3
    again = bench()
    assert again.stdout == done.stdout
    assert json.loads((tmp_path / "bench.json").read_text()) == found


def test_what_cannot_be(here):
    with pytest.raises(InputError) as caught:
        loader.load(
            "tiny.yaml",
            ["data.rows_per_class=8", "data.max_train_rows=9", "train.min_steps=9"],
        )
    assert str(caught.value) == (
        "command line: data.rows_per_class: expected null with data.max_train_rows, which draws as "
        "well"
    )
    with pytest.raises(InputError) as caught:
        loader.load("tiny.yaml", ["train.min_steps=9", "train.max_steps=3"])
    assert str(caught.value) == (
        "command line: train.min_steps: expected at most train.max_steps (3), got 9"
    )
