"""scripts/bench/bench_encoders.py on a tiny encoder: the sides take turns. No time is checked."""

import io
import json
import sys
from types import SimpleNamespace

import pytest
from accelerate.state import AcceleratorState, GradientState

from finetune.runtime import console
from tests.support.processes import ROOT

TURNS, STEPS, BATCH = 2, 2, 8


@pytest.fixture
def bench(here, monkeypatch, capsys):
    """The script, each of its sides computed in this process, which answers as it would."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    monkeypatch.setattr(console.CONSOLE, "is_main", True)  # the sides turn it off
    import bench_encoders

    def start(side, encoder):
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        monkeypatch.setattr(sys, "stdin", io.StringIO("go\n" * TURNS))
        words = [*sys.argv[1:], f"model.source={encoder}", "--side", side]
        assert bench_encoders.alone(*bench_encoders.read(words)) == 0
        assert sys.stdin.read() == ""  # it waited before each turn
        lines = io.StringIO(capsys.readouterr().out)
        nothing = io.StringIO()
        return SimpleNamespace(stdin=nothing, stdout=lines, kill=lambda: None, wait=lambda: 0)

    monkeypatch.setattr(bench_encoders, "start", start)
    return bench_encoders


def test_each_side_takes_its_turns_and_the_table_compares_them(bench, here, monkeypatch, capsys):
    import ruamel.yaml

    encoder = ruamel.yaml.YAML(typ="safe").load((here / "tiny.yaml").read_text())["model"]["source"]
    line = ["tiny.yaml", "--encoders", encoder, "--turns", str(TURNS), "--steps", str(STEPS)]
    monkeypatch.setattr(sys, "argv", ["bench_encoders.py", *line, "--json", "found.json"])
    assert bench.main() == 0
    printed = capsys.readouterr().out
    [turns] = json.loads((here / "found.json").read_text())["turns"].values()
    assert list(turns) == ["ours", "trainer", "tuned", "products"]
    for side, found in turns.items():
        assert len(found) == TURNS, side  # that which warms up is not counted
        assert all(turn["wall"] > 0 and turn["cpu"] > 0 for turn in found), side
    for side in ("ours", "trainer", "tuned"):
        assert [turn["rows"] for turn in turns[side]] == [STEPS * BATCH] * TURNS, side
    # Their products are ours.
    assert turns["products"][0]["flops_of_token"] == turns["ours"][0]["flops_of_token"] > 0
    assert "times tuned" in printed


def test_ratios_are_of_speeds_in_one_turn(bench):
    mine = [{"tokens": 100, "wall": 1.0}, {"tokens": 300, "wall": 1.0}, {"tokens": 90, "wall": 2.0}]
    others = [{"tokens": 50, "wall": 1.0}, {"tokens": 100, "wall": 1.0}, {"tokens": 45, "wall": 2}]
    assert bench.ratio(mine, others, "wall") == "2.00 (2.00 to 3.00)"
    assert bench.ratio(mine, [], "wall") == ""


def test_a_side_that_fails_ends_the_bench(bench):
    failed = SimpleNamespace(stdout=io.StringIO("Traceback\n"), wait=lambda: 2)
    with pytest.raises(SystemExit, match="tuned ended with exit code 2"):
        bench.answer(failed, "tuned")
