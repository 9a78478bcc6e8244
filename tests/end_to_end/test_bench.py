"""scripts/bench/bench.py on a tiny encoder: all sides run, on the same rows. No time is checked."""

import json
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState

from finetune.runtime import console
from tests.support import forks
from tests.support.processes import ENVIRONMENT, ROOT

SCRIPTS = ROOT / "scripts" / "bench"

STEPS, WARMUP, BATCH, TESTED = 2, 1, 8, 17


@pytest.fixture
def bench(here, monkeypatch, capsys):
    """Run bench.py on the documents, each side in a process of its own if so asked."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(
        console.CONSOLE, "is_main", True
    )  # the sides turn it off: put back at the end
    import bench

    def at_once(side, folder):
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        known, words = bench.read([*sys.argv[1:], "--side", side, "--folder", folder])
        assert bench.alone(side, known, words) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    in_a_process = bench.in_a_process

    def forked(side, folder):
        """But for one, which a real process runs."""
        if side == "ours":
            for name, value in (ENVIRONMENT | {"PYTHONPATH": str(ROOT)}).items():
                monkeypatch.setenv(name, value)
            return in_a_process(side, folder)
        words = [*sys.argv[1:], "--side", side, "--folder", folder]
        done = forks.run("scripts.bench.bench", *words, cwd=here)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def run(*words, processes=False):
        line = [
            *[str(SCRIPTS / "bench.py"), "tiny.yaml", "--rounds", "1", "--steps", str(STEPS)],
            *["--warmup", str(WARMUP), "--json", "found.json", "model.dropout=0.0", *words],
        ]
        monkeypatch.setattr(sys, "argv", line)
        monkeypatch.setattr(bench, "in_a_process", forked if processes else at_once)
        assert bench.main() == 0
        printed = capsys.readouterr().out
        found = json.loads((here / "found.json").read_text())
        assert found.keys() == {"command", "settings", "machine", "versions", "medians", "runs"}
        assert found["settings"]["warmup"] == WARMUP
        assert all(len(runs) == 1 for runs in found["runs"].values())
        return {side: one for side, [one] in found["runs"].items()}, printed

    return run


def test_all_sides_do_the_same_rows(bench, here):
    found, printed = bench("--optimizer", "sgd", "--plot", "found.svg", processes=True)
    assert list(found) == ["ours", "trainer", "tuned", "pipeline", "limit"]
    for side in ("ours", "trainer", "tuned"):
        assert found[side]["rows"] == STEPS * BATCH, side
        # From the text's words to ids the sides go ways of their own.
        assert found[side]["tokens_per_row"] == found["ours"]["tokens_per_row"], side
        assert found[side].keys() >= {"train", "tokens", "flops", "start", "memory"}, side
        # The same parts are frozen, so a token costs the same.
        of_token = found[side]["flops"] / found[side]["tokens_per_second"]
        assert of_token == pytest.approx(
            found["ours"]["flops"] / found["ours"]["tokens_per_second"]
        )
    for side in ("ours", "trainer", "tuned", "pipeline"):
        assert found[side]["scored"] == TESTED, side
        assert 0 <= found[side]["accuracy"] <= 1, side
    assert found["pipeline"]["same"] == 1  # tiny.yaml is fp32
    assert found["pipeline"]["accuracy"] == found["ours"]["accuracy"]
    assert found["limit"].keys() >= {"train", "score", "flops"}
    for side in found:
        assert f"\n  {side} " in printed, side
    assert "found.svg is drawn" in printed or "matplotlib is not installed" in printed
    assert (here / "found.svg").exists() == ("is drawn" in printed)


def test_kept_states_and_the_same_epoch_anew(bench):
    found, printed = bench("--frozen")
    assert list(found) == ["anew", "kept"]
    assert found["anew"]["rows"] == found["kept"]["rows"] == 93  # one epoch
    assert "fill" in found["kept"]
    assert "fill" not in found["anew"]
    assert "from kept states" in printed


def test_what_a_row_costs(bench):
    found, printed = bench("--rows", "100", "200")
    assert list(found) == ["rows-100", "rows-200", "memory-short", "memory-mixed", "memory-long"]
    for many in (100, 200):
        row = found[f"rows-{many}"]
        assert row["rows"] == many
        parts = (row[part] for part in ("prepare", "tokenize", "plan", "train"))
        assert row["row"] == pytest.approx(sum(parts))
    assert found["rows-200"]["train_rows"] == 160
    longest = [found[f"memory-{kind}"]["longest"] for kind in ("short", "mixed", "long")]
    assert longest == [4, 32, 32]  # tiny.yaml cuts documents at 32
    assert "peak memory" in printed


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_what_preparing_costs(bench, here):
    found, printed = bench("--prepare", "60", "100")
    assert list(found) == ["prepare-60", "prepare-100"]
    row = found["prepare-100"]
    assert row["rows"] == 100
    assert row.keys() >= {"prepare", "tokenize", "found_again", "growth"}
    assert row["file"] > 100 * len('{"text": "", "label": ""}')
    assert "rows/s to splits" in printed
