"""Two runs compared from Python."""

import pytest

import finetune
from finetune.api import comparison
from finetune.reporting.comparison_model import Comparison
from tests.unit.api.conftest import SHORT


def test_runs_and_folders_are_compared_without_a_word(here, frames, run, capfd):
    other = finetune.train(data=frames, model="encoder", run={"dir": "other", "seed": 1}, **SHORT)
    found = finetune.compare(run, str(other.folder))
    assert isinstance(found, Comparison)
    assert found.rows == 17
    assert [one.run for one in found.runs] == [str(run.folder), "other"]
    gap = found.pairs[0].accuracy.difference
    assert gap == pytest.approx(other.test.accuracy - run.test.accuracy)
    assert found.pairs[0].p_holm == found.pairs[0].p  # of one pair
    assert len(found.verdicts) == 1
    assert found.verdicts[0] in str(found)
    assert "2 runs on the same 17 documents" in found._repr_html_()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(finetune.InputError, match="expected two runs or more, got 1"):
        comparison.compare(run)
