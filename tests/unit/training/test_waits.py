"""Between two lines of the log no step waits for its device; nor does scoring or predicting.

Counted on a device that is pretended (`tests/support/pretended_device.py`); no GPU was at hand.
"""

import json

import pytest
from torch.utils import backend_registration
from transformers import masking_utils

from finetune.compute import padding_masks
from tests.support import forks
from tests.support.tiny import tiny_encoder

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
    or not hasattr(masking_utils, padding_masks.QUESTION),
    reason="this torch takes no device from Python, or these transformers ask each mask otherwise",
)
LOGGED = {1, 3, 6, 9}
VARIANTS = {
    "plain": {},
    "AdamW": {"optim": {"name": "adamw"}},
    "class weights": {"weights": True},
    "several labels": {"weights": True, "multi": True},
    "focal loss": {"train": {"loss": "focal"}},
    "windows": {"windows": True},
    "cls pooling, dropout": {"model": {"pooling": "cls", "dropout": 0.1}},
    "frozen layers": {"model": {"freeze": 1}},
    "checkpointing": {"train": {"checkpointing": "on"}},
    "no clipping": {"optim": {"max_grad_norm": None}},
    "eager attention": {"model": {"attention": "eager"}},
    "bf16": {"precision": "bf16", "weights": True},
    "fp16": {"precision": "fp16"},
    "end to end": {"flat": True, "weights": True},
    "end to end, windows, several labels, dropout": {
        "flat": True, "windows": True, "multi": True, "model": {"dropout": 0.1},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_encoder(tmp_path_factory.mktemp("tiny")))


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_step_waits_between_two_lines_of_the_log(encoder, tmp_path, variant):
    given = encoder, json.dumps(VARIANTS[variant])
    done = forks.run("tests.support.pretended_device", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    steps = {int(step): waits for step, waits in found["steps"].items()}
    assert len(steps) == 9
    assert {step: waits for step, waits in steps.items() if waits and step not in LOGGED} == {}
    assert steps[3]  # a line reads losses and norms: the counter sees what waits
    for what in ("scoring", "predicting"):
        assert [how for how, where in found[what]] == ["copy to the host"]  # of all logits
