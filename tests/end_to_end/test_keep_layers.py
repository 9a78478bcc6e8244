"""A run with model.keep_layers: trained, saved as a smaller model of its class, and taken up."""

import json

from finetune import load
from tests.support.runs import assert_same, finish, run_here, stopped_at

CUT = "model.keep_layers=1", "checkpoint.keep=99"


def test_a_cut_encoder_is_trained_saved_and_taken_up(here, shared, documents):
    cut = shared("documents/cut", lambda folder: finish(folder.parent, "run.dir=cut", *CUT))
    config = json.loads((cut / "model" / "config.json").read_text())
    assert config["encoder"]["num_hidden_layers"] == 1
    folder = stopped_at(cut, here / "run", 12)
    run_here("run.resume=run", *CUT)
    assert_same(cut, folder)
    [answer] = load(cut)(["the team won"])
    assert answer["label"] in "abc"


def test_more_layers_than_there_are_and_more_frozen_than_stay_are_refused(here, capsys):
    run_here("run.dir=run", "model.keep_layers=3", code=2)
    assert "model.keep_layers: expected at most 2" in capsys.readouterr().err
    run_here("run.dir=run", "model.keep_layers=1", "model.freeze=2", code=2)
    assert "model.freeze: expected at most 1" in capsys.readouterr().err
    assert not (here / "run").exists()
