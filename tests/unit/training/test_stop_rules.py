"""What only validation could decide is refused without it; signals wait for the step."""

import os
import signal
from types import SimpleNamespace

import pytest
from accelerate import Accelerator

from finetune.config import schema
from finetune.runtime.errors import InputError
from finetune.runtime.signals import SignalListener
from finetune.training.stop_consensus import StopConsensus, validate_stopping


class NoRows:
    origin = "none: 4 rows"

    def __len__(self):
        return 0


CORPUS = SimpleNamespace(validation=NoRows())


def recipe(**sections):
    return schema.Recipe(data=schema.Data(source="x"), **sections)


def test_without_validation():
    assert validate_stopping(recipe(), CORPUS, is_trial=False) == []
    asked = recipe(score=schema.Score(patience=2, target_accuracy=0.9))
    with pytest.raises(InputError) as caught:
        validate_stopping(asked, CORPUS, is_trial=False)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "score.patience",
        "score.target_accuracy",
    ]
    with pytest.raises(InputError, match=r"data\.validation: trials are compared by validation"):
        validate_stopping(recipe(), CORPUS, is_trial=True)
    backs_off = recipe(train=schema.Train(on_divergence="back_off"))
    [note] = validate_stopping(backs_off, CORPUS, is_trial=False)
    assert note.startswith("train.on_divergence: back_off sees losses that are not finite only")


def test_a_signal_waits_for_the_step():
    with SignalListener() as listener:
        stopping = StopConsensus(Accelerator(cpu=True), listener)
        with stopping:
            assert stopping.agreed(checkpoint=False, last=False) == (0, False)
            assert stopping.agreed(checkpoint=True, last=False) == (0, True)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopping.agreed(checkpoint=False, last=False)[0] == signal.SIGTERM
            listener.heard = None  # the run has answered it
