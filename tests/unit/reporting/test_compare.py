"""Runs compared row by row: numbers by hand, refusals, the script as it is called."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from finetune.config import loader
from finetune.evaluation import intervals
from finetune.reporting import compare as compare_module
from finetune.reporting import comparison_page, comparison_text, results_model, run_differences
from finetune.reporting.results import write_results
from finetune.runtime.errors import InputError
from finetune.training import folder_mark
from tests.support import forks
from tests.support.runs import run_here
from tests.unit.reporting.made import made_results


@pytest.fixture(scope="session")
def runs(documents, shared):
    """Two runs of two seeds, and one on fewer test rows."""

    def train(folder):
        folder.mkdir()
        for name in ("encoder", "data", "tiny.yaml"):
            (folder / name).symlink_to(documents / name)
        with contextlib.chdir(folder):
            for seed in (0, 1):
                run_here(f"run.dir=seed-{seed}", f"run.seed={seed}", "train.epochs=1")
            run_here("run.dir=fewer", "data.max_test_rows=9", "train.epochs=1")

    return shared("compared", train)


def write_run(folder, predictions, labels, words=(), **changes):
    """The folder of a made-up run of two labels or more, with what a comparison reads."""
    names = [f"label {c}" for c in range(2 if np.ndim(labels[0]) == 0 else len(labels[0]))]
    several = np.ndim(labels[0]) > 0
    results = made_results(len(names))
    values = results.as_json() | changes
    values["data"] |= {"multi_label": several}
    (folder / "predictions").mkdir(parents=True)
    write_results(results_model.Results.model_validate(values), folder)
    (folder / "recipe.yaml").write_text("data: {source: x}\n")
    recipe = loader.load(folder / "recipe.yaml", words)
    (folder / "recipe.yaml").write_text(loader.to_yaml(recipe))

    def named(ids):
        return [names[i] for i in np.flatnonzero(ids)] if several else names[ids]

    with (folder / "predictions/test.jsonl").open("w", encoding="utf-8") as out:
        for i, (label, predicted) in enumerate(zip(labels, predictions, strict=True)):
            given = predicted if several else np.eye(len(names))[predicted]
            line = {
                "row": f"x: row {i + 1}", "label": named(label), "predicted": named(predicted),
                "probabilities": {
                    name: 0.2 + 0.6 * value for name, value in zip(names, given, strict=True)
                },
                "text": f"text {i + 1}",
            }  # fmt: skip
            out.write(json.dumps(line) + "\n")
    return compare_module.read_run(folder)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes a run, called so, in this folder."""
    monkeypatch.chdir(tmp_path)
    return lambda name, *given, **changes: write_run(Path(name), *given, **changes)


def test_by_hand(made):
    labels = [0] * 50 + [1] * 50
    one = made("one", [0] * 40 + [1] * 60, labels)  # 10 wrong
    other = made("other", [0] * 48 + [1] * 50 + [0] * 2, labels)  # 4 wrong, 2 of them its own
    found = compare_module.compare_runs([one, other])
    [pair] = found.pairs
    assert (pair.only_one_right, pair.only_other_right) == (2, 8)
    assert (pair.both_right, pair.both_wrong) == (88, 2)
    assert pair.accuracy.difference == pytest.approx(0.06)
    low, high = pair.accuracy.interval
    assert low < 0.06 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.1 - 0.06**2) / 10, rel=0.15)
    assert pair.p == pair.p_holm == pytest.approx(binomtest(2, 10).pvalue)
    assert pair.verdict.startswith("No clear difference between other and one: ")
    same = compare_module.compare_runs([one, one]).pairs[0]
    most = intervals.paired_interval(0, 0, 100)[1]  # two that agree on 100 rows need not on others
    assert (same.p, same.accuracy.interval) == (1.0, (-most, most))


def test_holm_corrects_for_many_pairs(made):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 400)
    guesses = [np.where(draw.random(400) < share, 1 - labels, labels) for share in (0.1, 0.1, 0.3)]
    found = compare_module.compare_runs([made(str(i), g, labels) for i, g in enumerate(guesses)])
    ps, corrected = ([getattr(pair, key) for pair in found.pairs] for key in ("p", "p_holm"))
    assert sorted(corrected)[0] == pytest.approx(3 * min(ps))
    assert all(one >= p for one, p in zip(corrected, ps, strict=True))
    assert found.pairs[1].verdict.startswith("0 is better than 2: ")
    of_labels = [label for pair in found.pairs for label in pair.labels]
    assert len(of_labels) == 6
    least = min(of_labels, key=lambda label: label.p)
    assert least.p_holm == pytest.approx(6 * least.p)


def test_the_documents_that_changed_are_all_there_the_largest_change_first(made):
    labels = [0, 1, 0, 1, 0, 1, 0]
    one = made("one", [0, 1, 0, 0, 0, 1, 1], labels)
    other = made("other", [1, 1, 1, 1, 0, 1, 1], labels)
    [pair] = compare_module.compare_runs([one, other]).pairs
    assert [document.row for document in pair.worsened] == ["x: row 1", "x: row 3"]
    assert [document.row for document in pair.improved] == ["x: row 4"]
    [improved] = pair.improved
    assert (improved.label, improved.one, improved.other) == ("label 1", "label 0", "label 1")
    assert (improved.text, improved.id) == ("text 4", None)
    assert improved.probability_other - improved.probability_one == pytest.approx(0.6)
    assert (pair.both_right, pair.both_wrong) == (3, 1)


def test_labels_come_by_effect_and_those_that_changed_clearly_are_named(made):
    labels = [0] * 60 + [1] * 60
    one = made("one", [0] * 60 + [0] * 30 + [1] * 30, labels)
    other = made("other", [0] * 59 + [1] + [1] * 58 + [0] * 2, labels)
    [pair] = compare_module.compare_runs([one, other]).pairs
    assert pair.gained == ["label 1", "label 0"]
    assert pair.lost == []
    assert pair.labels[0].recall_other == pytest.approx(58 / 60)
    assert pair.labels[0].f1.difference >= pair.labels[1].f1.difference > 0
    [back] = compare_module.compare_runs([other, one]).pairs
    assert (back.gained, back.lost) == ([], ["label 1", "label 0"])
    assert back.labels[0].p == pair.labels[0].p
    text = comparison_text.describe_comparison(compare_module.compare_runs([one, other]))
    assert "gained clearly: label 1, label 0" in text


def test_of_several_labels_a_document_is_right_where_all_are(made):
    labels = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]
    one = made("one", [[1, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 0]], labels)
    other = made("other", [[1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 1, 0]], labels)
    found = compare_module.compare_runs([one, other])
    [pair] = found.pairs
    [worse], [better] = pair.worsened, pair.improved
    assert (worse.label, worse.other) == (["label 0", "label 2"], ["label 0"])
    assert (better.label, better.one) == ([], ["label 0"])
    assert better.probability_other == pytest.approx(0.8)
    assert better.probability_one == pytest.approx((0.2 + 0.8 + 0.8) / 3)
    text = comparison_text.describe_comparison(found)
    assert "x: row 2: label 0 → no label" in text
    assert "label 0 → no label" not in comparison_page.render_comparison(found)  # in bold


def test_what_differs_is_named_by_key_with_what_each_run_resolved(made):
    one = made("one", [0, 1], [0, 1], ["optim.lr=0.1", "run.dir=a", "data.text=[a,b]"])
    changes = {"num_processes": 1, "versions": {"python": "3", "torch": "2"}}
    other = made(
        "other",
        [0, 1],
        [0, 1],
        ["optim.name=adamw", "run.dir=b", "run.seed=1", "model.trust_remote_code=true"],
        **changes,
    )
    found = compare_module.compare_runs([one, other])
    differs = {setting.key: setting.values for setting in found.settings}
    assert differs["optim.lr"] == [0.1, 2e-4]
    assert differs["optim.name"] == ["sgd", "adamw"]
    assert differs["run.seed"] == [0, 1]
    assert differs["model.trust_remote_code"] == [False, True]
    assert differs["data.text"] == [["a", "b"], "text"]
    assert not {"run.dir", "data.source", "train.epochs", "run.name"} & {*differs}
    assert {setting.key: setting.values for setting in found.identity} == {
        "num_processes": [2, 1], "versions.torch": ["–", "2"],
    }  # fmt: skip
    text = comparison_text.describe_comparison(found)
    assert re.search(r"optim\.name +sgd → adamw\n", text)
    assert "versions.torch" in text
    same = compare_module.compare_runs([one, one])
    assert (same.settings, same.identity) == ([], [])
    assert "nothing in the recipes" in comparison_text.describe_comparison(same)
    assert "Nothing in the recipes" in comparison_page.render_comparison(same)


def test_other_weights_under_the_same_name_and_other_documents_are_named(made):
    def hashes(**changes):
        return (
            dict.fromkeys(
                ("data", "test", "tokens", "recipe", "first_weights", "weights"), "0" * 64
            )
            | changes
        )

    one = made("one", [0, 1], [0, 1], hashes=hashes())
    for key, changes, words in (
        ("hashes.first_weights", {"first_weights": "1" * 64}, ()),
        ("hashes.data", {"data": "1" * 64, "tokens": "1" * 64}, ()),
        ("hashes.tokens", {"tokens": "1" * 64}, ()),
        (None, {"first_weights": "1" * 64}, ["run.seed=1"]),  # as must be
        (None, {"first_weights": "1" * 64}, ["model.pooling=cls"]),
    ):
        other = made(f"other {key} {words}", [0, 1], [0, 1], words, hashes=hashes(**changes))
        found = compare_module.compare_runs([one, other])
        assert [setting.key for setting in found.identity] == [key] * (key is not None)
        assert all(setting.meaning for setting in found.identity)


def test_a_folder_without_its_recipe_or_predictions_is_refused(made):
    one = made("one", [0, 1], [0, 1])
    Path("one/recipe.yaml").unlink()
    with pytest.raises(InputError, match=r"one: expected a run's recipe\.yaml in it, found none"):
        compare_module.compare_runs([one, one])
    made("two", [0, 1], [0, 1])
    file = Path("two/predictions/test.jsonl")
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("label 1", "label 7"), encoding="utf-8")
    with pytest.raises(InputError, match="line 1 is damaged"):
        compare_module.read_run(Path("two"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.1, 0.05], "0.1 → 0.05"),
        ([None, True, "true"], "null, true, 'true'"),
        (["a b", ""], "a b → ''"),
        ([[{"lr": 0.1, "freeze": None}], []], "[{lr: 0.1}] → []"),
        ([["a", "b"], "a"], "[a, b] → a"),
    ],
)
def test_a_difference_reads_as_the_recipe_has_it(values, said):
    assert str(run_differences.Setting(key="x.y", values=values)) == said


def compare(folder, *words):
    return forks.run("scripts.compare", *words, cwd=folder)


def test_the_script(runs):
    done = compare(runs, "seed-0", "seed-1", "--page", "both.html")
    assert done.returncode == 0, done.stderr
    assert "seed-0" in done.stdout
    assert done.stdout.endswith("Report: both.html\n")
    assert "run.seed  0 → 1" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    text = (runs / "both.html").read_text(encoding="utf-8")
    assert "2 runs on the same 17 documents" in text
    assert text.count("<script>") == 1
    before = sorted(runs.iterdir())
    found = json.loads(compare(runs, "seed-0", "seed-1", "--json").stdout)
    assert sorted(runs.iterdir()) == before  # no page unasked
    assert [one["key"] for one in found["settings"]] == ["run.seed"]
    [pair] = found["pairs"]
    assert len(pair["worsened"]) == pair["only_one_right"]
    assert len(pair["improved"]) == pair["only_other_right"]
    assert all(one["text"].startswith("test ") for one in pair["worsened"] + pair["improved"])
    assert (
        found["runs"][0]["accuracy"]
        == json.loads((runs / "seed-0/results.json").read_text())["test"]["accuracy"]
    )


def test_a_run_that_is_not_finished_is_named_beside_its_scores(made):
    labels = [0] * 10 + [1] * 10
    made("one", labels, labels)
    made("other", labels[::-1], labels)
    folder_mark.write_mark(Path("other"), "run")
    runs = [compare_module.read_run(Path(name)) for name in ("one", "other")]
    found = compare_module.compare_runs(runs)
    [note] = found.notes
    assert note.startswith("other: not finished: ")
    assert "run.resume=other completes it" in note
    text = comparison_text.describe_comparison(found)
    assert "! other: not finished" in text
    assert note in str(found)
    assert note in comparison_page.render_comparison(found)


def test_other_rows_and_other_folders_are_refused(runs, tmp_path):
    done = compare(runs, "seed-0", "fewer")
    assert done.returncode == 2
    assert done.stderr.startswith("error: fewer: its test rows are not those of seed-0 (9 rows of ")
    assert done.stderr.endswith("; only predictions of the same rows can be compared\n")
    assert compare(runs, "seed-0").stderr == (
        "error: expected two run folders or more, or a folder that holds runs, got seed-0 alone\n"
    )
    with pytest.raises(
        InputError, match=r"expected the folder of a finished run, found no results\.json"
    ):
        compare_module.read_run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").write_text('{"step": 7}\n')
    with pytest.raises(InputError, match=r"it is unfinished, after step 7; run\.resume="):
        compare_module.read_run(tmp_path)
    shutil.copytree(runs / "seed-0", tmp_path / "old")
    file = tmp_path / "old" / "results.json"
    file.write_text(file.read_text().replace('"schema": 5', '"schema": 3'))
    with pytest.raises(
        InputError, match=r"expected schema 5, found 3; train the recipe beside it again"
    ):
        compare_module.read_run(tmp_path / "old")
