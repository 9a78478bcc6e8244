"""Runs compared row by row: numbers by hand, refusals, the script as it is called."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from scipy.stats import binomtest

from finetune.evaluation import intervals
from finetune.reporting import compare as compare_module
from finetune.runtime.errors import InputError
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


def made(name, predictions, labels):
    return compare_module.Run(name, made_results(2), np.array(labels), np.array(predictions))


def test_by_hand():
    labels = [0] * 50 + [1] * 50
    one = made("one", [0] * 40 + [1] * 60, labels)  # 10 wrong
    other = made("other", [0] * 48 + [1] * 50 + [0] * 2, labels)  # 4 wrong, 2 of them its own
    found = compare_module.compare_runs([one, other])
    [pair] = found["pairs"]
    assert (pair["only_one_right"], pair["only_other_right"]) == (2, 8)
    assert pair["accuracy"]["difference"] == pytest.approx(0.06)
    low, high = pair["accuracy"]["interval"]
    assert low < 0.06 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.1 - 0.06**2) / 10, rel=0.15)
    assert pair["p"] == pair["p_holm"] == pytest.approx(binomtest(2, 10).pvalue)
    assert compare_module.describe_pair(pair).startswith(
        "No clear difference between other and one: "
    )
    same = compare_module.compare_runs([one, one])["pairs"][0]
    most = intervals.paired_interval(0, 0, 100)[1]  # two that agree on 100 rows need not on others
    assert (same["p"], same["accuracy"]["interval"]) == (1.0, (-most, most))


def test_holm_corrects_for_many_pairs():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 400)
    guesses = [np.where(draw.random(400) < share, 1 - labels, labels) for share in (0.1, 0.1, 0.3)]
    found = compare_module.compare_runs([made(str(i), g, labels) for i, g in enumerate(guesses)])
    ps, corrected = ([pair[key] for pair in found["pairs"]] for key in ("p", "p_holm"))
    assert sorted(corrected)[0] == pytest.approx(3 * min(ps))
    assert all(one >= p for one, p in zip(corrected, ps, strict=True))
    assert compare_module.describe_pair(found["pairs"][1]).startswith("0 is better than 2: ")


def compare(folder, *words):
    return forks.run("scripts.compare", *words, cwd=folder)


def test_the_script(runs):
    done = compare(runs, "seed-0", "seed-1", "--page", "both.html")
    assert done.returncode == 0, done.stderr
    assert "seed-0" in done.stdout
    assert done.stdout.endswith("Report: both.html\n")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    text = (runs / "both.html").read_text(encoding="utf-8")
    assert "2 runs on the same 17 documents" in text
    assert text.count("<script>") == 1
    found = json.loads(compare(runs, "seed-0", "seed-1", "--json").stdout)
    assert (
        found["runs"][0]["accuracy"]
        == json.loads((runs / "seed-0/results.json").read_text())["test"]["accuracy"]
    )


def test_other_rows_and_other_folders_are_refused(runs, tmp_path):
    done = compare(runs, "seed-0", "fewer")
    assert done.returncode == 2
    assert done.stderr.startswith("error: fewer: its test rows are not those of seed-0 (9 rows of ")
    assert done.stderr.endswith("; only predictions of the same rows can be compared\n")
    assert compare(runs, "seed-0").stderr == (
        "error: expected two run folders or more, got seed-0 alone\n"
    )
    with pytest.raises(
        InputError, match=r"expected the folder of a finished run, found no results\.json"
    ):
        compare_module.read_run(tmp_path)
    shutil.copytree(runs / "seed-0", tmp_path / "old")
    file = tmp_path / "old" / "results.json"
    file.write_text(file.read_text().replace('"schema": 5', '"schema": 3'))
    with pytest.raises(
        InputError, match=r"expected schema 5, found 3; train the recipe beside it again"
    ):
        compare_module.read_run(tmp_path / "old")
