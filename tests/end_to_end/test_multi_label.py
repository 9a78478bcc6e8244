"""Several labels for one document, from the file to the saved model."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from finetune import run
from finetune.config.schema import Data
from finetune.data.corpus import class_counts, corpus_hash
from finetune.data.prepare import prepare_corpus
from finetune.data.sources import load_rows
from finetune.data.splitting import STAYS, carve
from finetune.evaluation import (
    baselines,
    confusion,
    error_analysis,
    intervals,
    metrics,
    probabilities,
    thresholds,
)
from finetune.reporting import baseline_comparison, compare, comparison_text
from finetune.reporting.next_steps import suggest_next_steps
from finetune.reporting.results_model import Results, read_results
from finetune.runtime.errors import InputError
from tests.support.runs import run_here
from tests.support.tiny import WORDS, tiny_encoder

NAMES = ("art", "sea", "war")


def read(path: Path, **keys):
    data = Data(source=str(path), **keys)
    return prepare_corpus(load_rows(data), data)


def three(folder, lines, suffix="jsonl", head=""):
    """The same rows as train, validation and test, each with texts of its own."""
    for split in ("train", "validation", "test"):
        (folder / f"{split}.{suffix}").write_text(head + "".join(lines).replace("TEXT", split))
    return folder


def test_lists_in_cells(tmp_path):
    lines = [
        '{"text": "TEXT 1", "label": ["war", "sea"]}\n',
        '{"text": "TEXT 2", "label": []}\n',
        '{"text": "TEXT 3", "label": [" art ", "art"]}\n',
        '{"text": "TEXT 4", "label": null}\n',
        '{"text": "TEXT 5", "label": "sea"}\n',
    ]
    corpus = read(three(tmp_path, lines))
    assert corpus.multi_label
    assert corpus.labels == NAMES
    assert corpus.train.labels.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert corpus.train.labels.dtype == np.int8
    assert class_counts(corpus.test, corpus.labels) == {"art": 1, "sea": 2, "war": 1}
    found = [str(f) for f in corpus.findings if f.split == "train" and f.kind != "few rows"]
    assert found == [
        "train: 1 row has no label (train.jsonl: line 4): dropped (data.on_null_label: drop)",
        "train: 1 row has white space around its label (train.jsonl: line 3): trimmed",
    ]
    assert len(corpus_hash(corpus)) == 64


def test_a_separator_and_columns_give_the_same(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    marked = three(
        tmp_path / "a", ["TEXT 1,sea; war\n", "TEXT 2,\n", "TEXT 3,art\n"], "csv", "text,label\n"
    )
    columns = three(
        tmp_path / "b",
        ["TEXT 1,0,1,true\n", "TEXT 2,0,0,False\n", "TEXT 3,1,0,0\n"],
        "csv",
        "text,art,sea,war\n",
    )
    ones = read(marked, label_separator=";")
    others = read(columns, label=("art", "sea", "war"))
    assert corpus_hash(ones) == corpus_hash(others)
    assert ones.train.labels.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]


def test_lists_of_numbers_with_the_data_sets_own_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["no", "up", "by"])
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.Sequence(names)}
    )
    made = {
        split: datasets.Dataset.from_dict(
            {"text": [f"{split} a", f"{split} b"], "label": [[2, 0], [1]]}, features=features
        )
        for split in ("train", "validation", "test")
    }
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "parquet").mkdir()
    for split, of in made.items():
        of.to_parquet(str(tmp_path / "parquet" / f"{split}.parquet"))
    for folder in ("saved", "parquet"):
        corpus = read(tmp_path / folder)
        assert corpus.labels == ("no", "up", "by")
        assert corpus.test.labels.tolist() == [[1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("text", "keys", "message"),
    [
        ("text,a,b\nx,1,2\ny,no,0\n", {"label": ("a", "b")},
         "data.label: expected 0 or 1, or true or false, in each column, got '2' in 'b' at row 1, "
         "'no' in 'a' at row 2; where each has labels of its own, set data.tasks"),
        ("text,a\nx,1\n", {"label": ("a", "b")}, "no column 'b' (data.label); did you mean 'a'?"),
    ],
)  # fmt: skip
def test_bad_columns(tmp_path, text, keys, message):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read(tmp_path, **keys)
    (problem,) = caught.value.problems
    assert message.partition(";")[0] in problem


def test_labels_that_train_lacks(tmp_path):
    three(
        tmp_path, ['{"text": "TEXT 1", "label": ["a", "b"]}\n', '{"text": "TEXT 2", "label": []}\n']
    )
    (tmp_path / "test.jsonl").write_text('{"text": "t", "label": ["a", "new"]}\n')
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert caught.value.problems == (
        "test: 1 row has a label that train does not have (test.jsonl: line 1), namely 'new' (1 "
        "row): "
        "data.on_unseen_label is 'stop'; correct the data, or set data.on_unseen_label to drop",
    )


sets = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=5, max_size=80)


@settings(deadline=None, max_examples=60)
@given(sets, st.floats(0.05, 0.5), st.integers(0, 2**30))
def test_any_cut_of_several_labels(rows, fraction, seed):
    labels = np.array(rows, dtype=np.int8)
    texts = [f"t{i // 2}" for i in range(len(rows))]  # each text twice
    side = carve(texts, labels, [fraction, 0.1], seed)
    pairs = Counter(zip(texts, side.tolist(), strict=True))
    assert all(count == 2 for pair, count in pairs.items() if texts.count(pair[0]) == 2)
    assert (labels[side == STAYS].any(axis=0) == labels.any(axis=0)).all()
    assert (side == carve(texts, labels, [fraction, 0.1], seed)).all()
    assert ((side == 0) == (carve(texts, labels, [fraction, 0.0], seed) == 0)).all()


def test_a_cut_has_its_share_of_each_label():
    draw = np.random.default_rng(0)
    shares = np.array([0.5, 0.2, 0.05, 0.02, 0.01])
    labels = (draw.random((4000, 5)) < shares).astype(np.int8)
    labels[:, 4] &= labels[:, 1]  # never alone
    side = carve([str(i) for i in range(4000)], labels, [0.1, 0.1], 0)
    for cut in (0, 1):
        assert abs((side == cut).sum() - 400) <= 1
        of_each = labels[side == cut].sum(axis=0)
        assert np.abs(of_each - 0.1 * labels.sum(axis=0)).max() <= 5, of_each
    alone = ~labels.any(axis=1)
    assert abs((alone & (side == 0)).sum() / alone.sum() - 0.1) < 0.02


def answers(rows=300, seed=0):
    draw = np.random.default_rng(seed)
    labels = (draw.random((rows, 4)) < [0.4, 0.3, 0.1, 0.02]).astype(np.int8)
    logits = (2 * labels - 1 + 1.5 * draw.normal(size=labels.shape)).astype(np.float32)
    return logits, labels


def test_metrics_are_scikit_learns_and_lie_in_their_intervals():
    logits, labels = answers()
    cuts = np.array([0.5, 0.4, 0.3, 0.2])
    names = [f"{kind}_{of}" for kind in ("precision", "recall", "f1") for of in metrics.AVERAGES]
    wanted = metrics.load_metrics([*names, "accuracy", "log_loss"], "loss", False, multi_label=True)
    metrics.check_metrics(wanted, 4, multi_label=True)
    values = metrics.measure(wanted, logits, labels, cuts)
    given = probabilities.predict_labels(logits, True, cuts)
    assert values["accuracy"] == (given == labels).all(axis=1).mean()
    assert values["log_loss"] == pytest.approx(probabilities.row_losses(logits, labels).mean())
    table = confusion.Confusion.from_labels(labels, given, 4)
    of = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
    for name in names:
        kind, average = name.split("_")
        expected = of[kind](labels, given, average=average, zero_division=0)
        assert values[name] == pytest.approx(expected)
        assert table.observed(name) == pytest.approx(expected)
    assert table.observed("accuracy") == values["accuracy"]
    ends = confusion.metric_intervals(wanted, logits, labels, cuts)
    for name in values:
        assert ends[name][0] < values[name] < ends[name][1]
    plain = probabilities.predict_labels(logits, True)
    gap = confusion.paired_difference("f1_macro", labels, given, plain, 4)
    other = confusion.Confusion.from_labels(labels, plain, 4).observed("f1_macro")
    assert gap["difference"] == pytest.approx(values["f1_macro"] - other)


def test_a_label_that_the_rows_say_nothing_of_is_not_averaged():
    """As of single labels: neither there nor given; one that is wrongly given counts, as 0."""
    logits, labels = answers()
    wide = np.c_[labels, np.zeros((300, 2), dtype=np.int8)]
    nothing = np.full((300, 2), -9, dtype=np.float32)
    nothing[0, 0] = 9
    wanted = metrics.load_metrics(["f1_macro", "recall_weighted"], "loss", False, multi_label=True)
    values = metrics.measure(wanted, np.c_[logits, nothing], wide)
    plain = metrics.measure(wanted, logits, labels)
    assert values["f1_macro"] == pytest.approx(plain["f1_macro"] * 4 / 5)
    assert values["recall_weighted"] == pytest.approx(plain["recall_weighted"])
    table = confusion.Confusion.from_labels(
        wide, probabilities.predict_labels(np.c_[logits, nothing], True), 6
    )
    assert all(table.observed(name) == pytest.approx(value) for name, value in values.items())
    none = np.zeros((5, 6), dtype=np.int8)
    assert metrics.measure(wanted, none - 9.0, none)["f1_macro"] == 0
    assert confusion.Confusion.from_labels(none, none, 6).observed("f1_macro") == 0


def test_metrics_of_single_labels_are_refused():
    wanted = metrics.load_metrics(
        ["matthews_correlation", "top_3_accuracy"], "loss", False, multi_label=True
    )
    with pytest.raises(InputError) as caught:
        metrics.check_metrics(wanted, 3, multi_label=True)
    assert [problem.partition(" (")[0] for problem in caught.value.problems] == [
        f"score.metrics: '{name}' cannot score 3 classes where a row may have several"
        for name in ("matthews_correlation", "top_3_accuracy")
    ]


def test_the_interval_of_micro_f1_holds_the_truth():
    """Of 200 test splits, about 190 intervals hold the score of all documents."""
    logits, labels = answers(rows=40_000, seed=1)
    wanted = metrics.load_metrics(["f1_micro"], "f1_micro", False, multi_label=True)
    truth = metrics.measure(wanted, logits, labels)["f1_micro"]
    hits = 0
    for part in np.array_split(np.arange(len(labels)), 200):
        guesses = probabilities.predict_labels(logits[part], True)
        table = confusion.Confusion.from_labels(labels[part], guesses, 4)
        low, high = intervals.cells_interval(
            table.counts, lambda cells, table=table: table.value("f1_micro", cells), resamples=300
        )
        hits += low <= truth <= high
    assert 180 <= hits <= 198


def test_thresholds_are_those_that_help_on_rows_they_were_not_tuned_on():
    logits, labels = answers(rows=2000)
    logits[:, 1] -= 3  # this class is held improbable
    logits[:, 2] += 2  # and this one probable
    found = thresholds.choose_per_label(probabilities.sigmoid(logits), labels)
    assert found[1] < 0.3 < 0.6 < found[2]
    fresh, truth = answers(rows=2000, seed=5)
    fresh[:, 1] -= 3
    fresh[:, 2] += 2
    tuned, plain = (
        sk.f1_score(truth, probabilities.predict_labels(fresh, True, cuts), average="macro")
        for cuts in (found, None)
    )
    assert tuned > plain + 0.05


def test_a_rare_class_has_the_shared_threshold():
    logits, labels = answers(rows=400)
    labels[:, 3] = 0
    labels[:4, 3] = 1  # four rows, with whatever probabilities
    chances = probabilities.sigmoid(logits)
    several = thresholds.choose_per_label(chances, labels)
    assert several[3] in thresholds.GRID
    assert (thresholds.choose_per_label(chances, np.zeros_like(labels)) == 0.5).all()


def test_where_it_fails_is_told_of_sets_too():
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]])
    guesses = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]])
    classes = error_analysis.score_by_class(labels, guesses, NAMES)
    assert [(c["support"], c["predicted"]) for c in classes] == [(3, 1), (1, 3), (0, 1)]
    assert classes[1]["precision"] == pytest.approx(1 / 3)
    assert error_analysis.confusion_matrix(labels, guesses, 3) is None
    assert error_analysis.confused_pairs(labels, guesses, NAMES) == [
        {"label": "art", "predicted": "sea", "rows": 2, "share": 2 / 3}
    ]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Documents of three topics, of which each may have any."""
    folder = tmp_path_factory.mktemp("several")
    tiny_encoder(folder / "encoder")
    (folder / "data").mkdir()
    for split, rows in {"train": 80, "validation": 24, "test": 21}.items():
        with (folder / "data" / f"{split}.jsonl").open("w") as out:
            for i in range(rows):
                chosen = [c for c in range(3) if i >> c & 1]
                words = [WORDS[20 * c + (i * 7 + k) % 20] for c in chosen for k in range(4)]
                line = {
                    "text": " ".join(["the", str(i), *words]),
                    "label": [NAMES[c] for c in chosen],
                }
                out.write(json.dumps(line) + "\n")
    (folder / "tiny.yaml").write_text(
        "data: {source: data, max_length: 32, on_duplicate: keep}\n"
        "model: {source: encoder}\n"
        "train: {epochs: 3, batch_size: 8, precision: fp32, threads: 1}\n"
        "optim: {lr: 0.3}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_here("run.dir=out")
        yield folder


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_run(work):
    found = results(work / "out")
    assert found["data"]["multi_label"]
    assert [*found["test"]["intervals"]] == ["f1_micro", "f1_macro", "accuracy", "loss"]
    assert found["confusion"] is found["abstention"] is None
    assert [*found["thresholds"]] == [*NAMES]
    assert found["baselines"]["majority"]["label"] in NAMES
    assert found["baselines"]["majority"]["f1_micro"] > 0
    saved = (work / "out" / "recipe.yaml").read_text()
    assert "monitor: f1_macro" in saved
    config = json.loads((work / "out" / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["document"]["thresholds"] == [*found["thresholds"].values()]
    answers = [
        json.loads(line) for line in (work / "out/predictions/test.jsonl").read_text().splitlines()
    ]
    assert answers[0]["label"] == []
    assert answers[5]["label"] == ["art", "war"]
    labels, given = (
        np.array([[name in answer[key] for name in NAMES] for answer in answers])
        for key in ("label", "predicted")
    )
    assert found["test"]["f1_macro"] == pytest.approx(
        sk.f1_score(labels, given, average="macro", zero_division=0)
    )
    page = (work / "out" / "report.html").read_text()
    assert "f1_micro" in page
    assert '<th scope="col">threshold</th>' in page
    card = (work / "out" / "model" / "README.md").read_text()
    assert "one or several of these labels" in card
    assert "document.thresholds" in card


def test_what_to_do_about_too_many_labels(work):
    found = results(work / "out")
    found["train"] |= {"steps": 60, "planned_steps": 60}  # fewer are told of before all else

    def steps():
        return " ".join(suggest_next_steps(Results.model_validate(found), []))

    for times, is_told in ((19, False), (21, True)):  # times, each, in 21 documents
        for one in found["classes"]:
            one["predicted"] = times
        assert ("labels a document, where 1.4 are true" in steps()) == is_told
    assert "train.epochs=" in steps()
    # Better than TF-IDF is no praise where the majority class alone would do better.
    of = {name: one["paired_difference"]["f1_micro"] for name, one in found["baselines"].items()}
    of["tfidf"] |= {"difference": 0.25, "interval": [0.2, 0.3]}
    of["majority"] |= {"difference": -0.13, "interval": [-0.2, -0.1]}

    found["monitor"] = "f1_micro"

    def comparison():
        return baseline_comparison.summarize_comparison(Results.model_validate(found))

    assert "beats the TF-IDF baseline" in comparison()  # as macro-F1 is clearly better
    macro = found["baselines"]["majority"]["paired_difference"]["f1_macro"]
    assert macro["interval"][0] > 0
    macro["interval"] = [-0.01, 0.1]
    assert comparison() == (
        "The model is worse than the majority-class baseline by 13.0 points of micro-F1 (95 % "
        "interval −20.0 to −10.0)."
    )
    assert "it has learned next to nothing. Train longer" in steps()


def test_tfidf_without_validation_chooses_on_rows_held_out(work):
    """A threshold from rows that it was fitted on would be near one half: it knows them."""
    corpus = read(work / "data")
    found = baselines.tfidf_baseline(
        replace(corpus, validation=replace(corpus.validation, labels=None))
    )
    [cut] = {*found.thresholds.tolist()}
    assert 0 < cut < 1
    given = probabilities.sigmoid(found.logits) >= cut
    assert sk.f1_score(corpus.test.labels, given, average="micro") > 0.8


def test_the_cards_lines_give_the_predictions(work):
    pytest.importorskip("transformers")
    import finetune.modeling.build  # noqa: F401 # instead of trust_remote_code  # instead of trust_remote_code
    from finetune.reporting import html_report

    text = html_report.loading_code(read_results(work / "out"), str(work / "out" / "model"))
    texts = [json.loads(x)["text"] for x in (work / "data/test.jsonl").read_text().splitlines()]
    answers = (work / "out/predictions/test.jsonl").read_text().splitlines()
    lines = text.replace(", trust_remote_code=True", "").splitlines()
    lines[-1] = f"chosen = {lines[-1]}"
    for i in (0, 3, 6):
        space: dict = {}
        exec("\n".join(lines).replace("A document.", texts[i]), space)
        assert sorted(space["chosen"]) == sorted(json.loads(answers[i])["predicted"])


def test_a_run_goes_on_and_seeds_and_runs_are_compared(work):
    run_here("run.dir=seeds", "run.seeds=[0,1]", "train.epochs=1", "train.class_weights=balanced")
    seeds = json.loads((work / "seeds" / "seeds.json").read_text())
    assert seeds["main"] == "f1_macro"
    one, other = (compare.read_run(work / "seeds" / f"seed-{seed}") for seed in (0, 1))
    found = compare.compare_runs([one, other])
    assert found.runs[0].accuracy == results(work / "seeds/seed-0")["test"]["accuracy"]
    assert comparison_text.describe_comparison(found)


def test_a_model_of_several_labels_that_gives_all_the_same_is_lost(work, capsys):
    assert run.main([str(work / "tiny.yaml"), "run.dir=lost", "optim.lr=3000"]) == 2
    assert "error" in capsys.readouterr().err


def test_the_model_file_has_the_loss_too(work):
    from finetune.modeling.saved_model import load_classifier

    model, tokenizer = load_classifier(work / "out" / "model")
    inputs = tokenizer(["the team", "a chip"], return_tensors="pt", padding=True)
    labels = torch.tensor([[1, 0, 1], [0, 0, 0]])
    output = model(**inputs, labels=labels)
    expected = probabilities.row_losses(output.logits.detach().numpy(), labels.numpy()).mean()
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)
