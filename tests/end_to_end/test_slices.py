"""score.slices through a whole run: read with the rows, scored, told; and nothing else changes."""

import contextlib
import json

import pytest
from safetensors.numpy import load_file

from finetune import run
from tests.support.runs import reset_accelerate, results, run_here


@pytest.fixture
def sliced(documents, tmp_path):
    for split, count in (("train", 40), ("validation", 12), ("test", 24)):
        rows = [
            {"text": f"{'game team' if i % 2 else 'bank tax'} {i}", "label": "ab"[i % 2],
             "channel": ("mail", "web", None)[i % 3], "price": i / 2}
            for i in range(count)
        ]  # fmt: skip
        (tmp_path / "rows").mkdir(exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "rows" / f"{split}.jsonl").write_text(lines)
    for name in ("encoder", "tiny.yaml"):
        (tmp_path / name).symlink_to(documents / name)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def test_a_run_tells_its_slices_and_its_weights_stay_the_same(sliced, capsys):
    words = ("data.source=rows", "train.max_steps=2")
    run_here(*words, "score.slices=[channel, price]", "run.dir=with")
    said = capsys.readouterr().out
    run_here(*words, "run.dir=without")
    found = results(sliced / "with")
    assert [one["by"] for one in found["slices"]] == ["channel", "price", "length"]
    by_channel, by_price, _ = (one["slices"] for one in found["slices"])
    assert [(one["value"], one["rows"]) for one in by_channel] == [
        ("mail", 8), ("no value", 8), ("web", 8),
    ]  # fmt: skip
    assert sum(one["rows"] for one in by_price) == 24
    hits = sum(one["rows"] * one["accuracy"] for one in by_channel)
    assert hits == pytest.approx(24 * found["test"]["accuracy"])
    assert "by channel" in said
    assert '<section id="slices">' in (sliced / "with/report.html").read_text()
    plain = results(sliced / "without")
    assert plain["slices"] == []
    assert plain["hashes"]["weights"] == found["hashes"]["weights"]
    one, other = (
        load_file(sliced / name / "model/model.safetensors") for name in ("with", "without")
    )
    assert all((one[name] == other[name]).all() for name in one)


def test_columns_that_cannot_be_slices_are_refused_before_training(sliced, capsys):
    for words, problem in (
        (["score.slices=[chanel]"], "no column 'chanel' (score.slices); did you mean 'channel'?"),
        (["score.slices=[label]"], "expected other columns than those of text and label"),
        (["score.slices=[price, price]"], "expected each column once"),
    ):
        reset_accelerate()
        assert run.main(["tiny.yaml", "data.source=rows", *words]) == 2
        assert problem in " ".join(capsys.readouterr().err.split())
    assert not (sliced / "runs").exists()
