"""Cross-validation: a run for each part of train, and one on all rows, which the others score."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from finetune.config import loader, schema
from finetune.data import prepare, splitting
from finetune.data.corpus import split_hash
from finetune.data.sources import load_rows
from finetune.evaluation import baselines, calibration, probabilities
from finetune.runtime.errors import InputError
from finetune.tuning import cross_validation
from tests.support.runs import assert_same, in_step, results, run_here

WORDS = "data.source=few", "data.validation=none", "train.epochs=2", "run.folds=3"


@pytest.fixture
def few(here):
    """60 documents, without splits."""
    lines = (here / "data" / "train.jsonl").read_text().splitlines(keepends=True)
    (here / "few").mkdir()
    (here / "few" / "train.jsonl").write_text("".join(lines[:60]))
    return here


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=90),
    st.integers(2, 7),
    st.integers(0, 3),
)
def test_parts_are_alike(rows, many, seed):
    keys = np.array([key for key, _ in rows])
    labels = np.array([label for _, label in rows])
    parts = splitting.assign_folds(keys, labels, many, seed)
    assert (parts == splitting.assign_folds(keys, labels, many, seed)).all()
    assert set(parts.tolist()) <= set(range(many))
    for key in set(keys.tolist()):  # the same text is never on both sides
        assert len(set(parts[keys == key].tolist())) == 1
    _, first = np.unique(keys, return_index=True)
    sizes = np.bincount(parts[first], minlength=many)
    assert sizes.max() - sizes.min() <= 1
    for label in range(4):
        of_label = np.bincount(parts[first][labels[first] == label], minlength=many)
        assert of_label.max() - of_label.min() <= 1


def test_every_row_is_judged_by_a_run_that_had_not_seen_it(few, capsys):
    run_here("run.dir=run", *WORDS)
    said = " ".join(capsys.readouterr().out.split())
    assert "Fold 1 of 3" in said
    assert "test: train in 3 parts, each scored by a model that had not seen it" in said
    assert "Cross-validated, 3 folds: accuracy 0." in said
    folders = [few / "run" / f"fold-{i}" for i in (1, 2, 3)]
    judged = {}
    for i, folder in enumerate(folders, 1):
        found = results(folder)
        assert found["data"]["splits"]["train"]["rows"] == 40
        assert found["data"]["splits"]["test"]["classes"].keys() == {"a", "b", "c"}
        assert found["data"]["splits"]["test"]["origin"] == (
            f"part {i}/3 of train.jsonl, stratified, seed 0"
        )
        assert "validation" not in found["data"]["splits"]
        for line in (folder / "predictions" / "test.jsonl").read_text().splitlines():
            row = json.loads(line)
            assert row["row"] not in judged
            judged[row["row"]] = row
    whole = results(few / "run" / "all")
    assert whole["data"]["splits"]["train"]["rows"] == 60
    assert whole["data"]["folds"] == 3
    assert whole["train"]["rows"] == 120
    assert len(judged) == whole["test"]["rows"] == 60
    for line in (few / "run" / "all" / "predictions" / "test.jsonl").read_text().splitlines():
        row = json.loads(line)
        then = judged[row["row"]]
        assert (row["label"], row["predicted"]) == (then["label"], then["predicted"])
        assert row["probabilities"] == pytest.approx(then["probabilities"], abs=1e-5)
    right = [row["label"] == row["predicted"] for row in judged.values()]
    assert whole["test"]["accuracy"] == pytest.approx(np.mean(right))
    # TF-IDF is judged in the same way.
    alone = [results(folder)["baselines"]["tfidf"]["accuracy"] for folder in folders]
    assert whole["baselines"]["tfidf"]["accuracy"] == pytest.approx(np.mean(alone))
    page = (few / "run" / "all" / "report.html").read_text()
    assert "each document was scored by the one of 3 models that had not seen its fold" in page
    card = (few / "run" / "all" / "model" / "README.md").read_text()
    assert "By cross-validation: each of the 60 documents" in card


@pytest.mark.parametrize("task", ["one label", "several labels"])
def test_held_out_predictions_calibrate_the_model_that_is_kept(few, task):
    """By one temperature of all rows; each row is scored with that of the other folds' rows."""
    words = [*WORDS, "train.epochs=20", "optim.head_lr_scale=100"]
    file = few / "few" / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    drawn = np.random.default_rng(0).permutation([row["label"] for row in rows])  # to be learned
    for row, label in zip(rows, drawn.tolist(), strict=True):  # by heart: overconfident elsewhere
        row["label"] = label if task == "one label" else [label]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_here("run.dir=run", *words)
    whole = results(few / "run" / "all")
    found = whole["calibration"]
    corpus = prepare.prepare_corpus(
        load_rows(loader.load("tiny.yaml", words).data), loader.load("tiny.yaml", words).data,
        folds=3,
    )  # fmt: skip
    folders = [few / "run" / f"fold-{i}" for i in (1, 2, 3)]
    held_out = cross_validation.held_out_logits(folders, corpus)
    labels = corpus.train.labels
    expected = calibration.fit_temperature(held_out, labels, rows="held-out rows")
    assert expected.value != 1, "this run is meant to be far from calibrated"
    assert found["temperature"] == pytest.approx(expected.value)
    assert found["why"] == "fitted on 60 held-out rows"
    divided = np.empty_like(held_out)
    for fold in range(3):
        others = corpus.folds != fold
        divisor = calibration.fit_temperature(held_out[others], labels[others]).value
        divided[~others] = held_out[~others] / divisor
    loss = probabilities.row_losses(divided, labels).mean()
    assert found["test"]["after"]["log_loss"] == pytest.approx(loss, rel=1e-4)
    as_trained = probabilities.row_losses(held_out, labels).mean()
    assert found["test"]["before"]["log_loss"] == pytest.approx(as_trained, rel=1e-4)
    assert loss < as_trained
    [point] = sorted((few / "run/all/checkpoints").glob("step-*"))[-1:]
    trained, saved = (
        load_file(file / "model.safetensors")["classifier.weight"]
        for file in (point / "best", few / "run/all/model")
    )
    torch.testing.assert_close(saved, trained / found["temperature"])


def test_a_fold_alone_and_all_of_them_again(few):
    run_here("run.dir=run", *WORDS)
    words = "data.source=few", "data.validation=none", "train.epochs=2"
    run_here("run.dir=second", *words, "data.fold=2/3")
    assert_same(few / "run" / "fold-2", few / "second")
    kept = loader.load(few / "run" / "all" / "recipe.yaml")
    assert kept.run.folds == 3
    # Finished runs stay as they are, and what is missing is done.
    before = (few / "run" / "fold-1" / "results.json").read_bytes()
    (few / "run" / "fold-3" / "results.json").unlink()
    run_here("run.dir=run", *WORDS, "run.resume=auto")
    assert (few / "run" / "fold-1" / "results.json").read_bytes() == before
    assert (few / "run" / "fold-3" / "results.json").is_file()


def test_a_given_test_split_plays_no_role(here):
    choices = schema.Data(source="data", fold="1/2", validation="none")
    corpus = prepare.prepare_corpus(load_rows(choices), choices)
    assert [len(s) for s in (corpus.train, corpus.validation, corpus.test)] == [46, 0, 47]
    whole = prepare.prepare_corpus(
        load_rows(choices), choices.model_copy(update={"fold": None}), folds=2
    )
    assert [len(s) for s in (whole.train, whole.validation, whole.test)] == [93, 0, 93]
    assert [whole.train.texts[i] for i in np.flatnonzero(whole.folds == 0)] == [*corpus.test.texts]
    assert baselines.tfidf_baseline(whole).logits.shape == (93, 3)


def test_rows_are_drawn_before_they_are_dealt(here):
    choices = schema.Data(source="data", fold="1/2", validation="none", rows_per_class=6)
    corpus = prepare.prepare_corpus(load_rows(choices), choices)
    assert [len(corpus.train), len(corpus.test)] == [9, 9]
    assert np.bincount(corpus.test.labels).tolist() == [3, 3, 3]


def test_parts_are_dealt_before_validation_is_cut_off(here):
    choices = schema.Data(source="data", validation="carve", split_seed=1)
    rows = load_rows(choices)
    whole = prepare.prepare_corpus(rows, choices, folds=3)
    assert len(whole.validation) == 9
    for part in range(3):
        fold = choices.model_copy(update={"fold": f"{part + 1}/3"})
        judged = prepare.prepare_corpus(rows, fold).test
        assert split_hash(judged) == whole.fold_hashes[part]
        mine = [whole.train.texts[i] for i in np.flatnonzero(whole.folds == part)]
        assert set(mine) == set(judged.texts) - set(whole.validation.texts)


def test_of_several_labels_each_part_has_its_own_thresholds(here):
    (here / "several").mkdir()
    for split in ("train", "validation"):
        lines = (here / "data" / f"{split}.jsonl").read_text().splitlines()
        with (here / "several" / f"{split}.jsonl").open("w") as out:
            for i, line in enumerate(map(json.loads, lines)):
                out.write(
                    json.dumps(line | {"label": [line["label"], *["d"] * (i % 5 == 0)]}) + "\n"
                )
    choices = schema.Data(source="several")
    rows = load_rows(choices)
    whole = prepare.prepare_corpus(rows, choices, folds=2)
    joined = baselines.tfidf_baseline(whole)
    given = probabilities.predict_labels(joined.logits, True, joined.thresholds)
    for part in range(2):
        one = baselines.tfidf_baseline(
            prepare.prepare_corpus(rows, choices.model_copy(update={"fold": f"{part + 1}/2"}))
        )
        assert (one.thresholds != 0.5).any()
        alone = probabilities.predict_labels(one.logits, True, one.thresholds)
        assert (given[whole.folds == part] == alone).all()


def test_finished_folds_of_other_rows_are_refused(few, capsys):
    words = *WORDS, "run.dir=run", "checkpoint.every=never"
    run_here(*words)
    shutil.rmtree(few / "run" / "all")
    file = few / "few" / "train.jsonl"
    whole = file.read_text()
    file.write_text(whole.replace("train 7 ", "train seven ", 1))
    capsys.readouterr()
    run_here(*words, "run.resume=auto", code=2)
    said = capsys.readouterr()
    assert "is finished" not in said.out
    assert said.err == (
        "error: run.folds: run/fold-1 scored other rows than those of fold 1/3: the data or the "
        "number of folds changed since; choose another run.dir\n"
    )
    file.write_text(whole)
    run_here(*words, "run.folds=2", "run.resume=auto", code=2)
    assert "run/fold-1 scored other rows than those of fold 1/2" in capsys.readouterr().err
    assert not (few / "run" / "all").exists()


def test_what_a_later_run_would_refuse_is_told_before_the_first(few, capsys):
    run_here("run.dir=run", *WORDS, "publish.repo_id=ann/a--b", code=2)
    assert "publish.repo_id: 'ann/a--b' is not a valid repository name" in capsys.readouterr().err
    with (few / "few" / "train.jsonl").open("a") as out:  # nearly the same, in two parts
        for end in ("", " said"):
            text = " ".join(f"w{i}" for i in range(40)) + end
            out.write(json.dumps({"text": text, "label": "a"}) + "\n")
    choices = schema.Data(source="few", fold="1/3", validation="none", on_leak="stop")
    rows = load_rows(choices)

    def leaks(seed, part):
        try:
            prepare.prepare_corpus(
                rows, choices.model_copy(update={"split_seed": seed, "fold": f"{part}/3"})
            )
        except InputError:
            return True
        return False

    seed = next(seed for seed in range(20) if not leaks(seed, 1) and leaks(seed, 2))
    for more in ((), ("--dry-run",)):
        leak = ("data.on_leak=stop", f"data.split_seed={seed}", *more)
        run_here("run.dir=run", *WORDS, *leak, code=2)
        assert "data.on_leak is 'stop'" in capsys.readouterr().err
    assert not (few / "run").exists()


def test_a_stop_says_how_all_of_them_go_on(few, capsys):
    with pytest.MonkeyPatch.context() as patch:
        in_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run_here("run.dir=run", *WORDS, code=75)
    said = capsys.readouterr()
    assert (said.out + said.err).endswith(
        "stopped by SIGTERM after step 4, with a checkpoint; to go on, run the same with "
        "run.dir=run run.resume=auto\n"
    )
    run_here(*WORDS, "run.dir=run", "run.resume=auto")
    assert results(few / "run" / "all")["data"]["folds"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run.folds=3", "data.max_test_rows=9"],
            "data.max_test_rows: expected null with run.folds, which scores each row of train "
            "once, got 9",
        ),
        (
            ["run.folds=3", "data.test_fraction=0.2"],
            "data.test_fraction: expected 0.1, its default, with run.folds, which scores each row "
            "of train once, got 0.2",
        ),
        (
            ["run.folds=3", "data.fold=1/3"],
            "data.fold: expected null with run.folds, which scores each row of train once, got 1/3",
        ),
        (
            ["run.folds=3", "data.test=test"],
            "data.test: expected auto with run.folds, where train is scored, in parts, got 'test'",
        ),
        (
            ["run.folds=3", "run.seeds=[1,2]"],
            "run.folds: expected null with run.seeds; set run.folds or run.seeds, not both",
        ),
        (["data.fold=3/2"], "data.fold: expected one of two parts or more, as 2/5, got 3/2"),
        (["data.fold=1/1"], "data.fold: expected one of two parts or more, as 2/5, got 1/1"),
    ],
)
def test_what_cannot_be(here, words, message):
    with pytest.raises(InputError) as caught:
        loader.load("tiny.yaml", words)
    assert str(caught.value) == f"command line: {message}"


def test_more_parts_than_documents(here, capsys):
    run_here("run.folds=30", "data.max_train_rows=20", "run.dir=run", code=2)
    assert capsys.readouterr().err == (
        "error: run.folds: expected at least 30 different texts in train, found 20\n"
    )
    run_here("run.folds=3", "run.resume=auto", code=2)
    assert capsys.readouterr().err.startswith("error: run.resume: expected auto with run.folds")


def test_labels_may_hold_any_separator(few):
    file = few / "few" / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["label"] = "a\u2028b" if row["label"] == "a" else row["label"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_here("run.dir=run", *WORDS[:2], "train.epochs=1", "run.folds=2")
    assert "a\u2028b" in results(few / "run" / "all")["data"]["labels"]
