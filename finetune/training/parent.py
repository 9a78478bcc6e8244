"""What the classifier that a run began with says of test, where its head was kept."""

import numpy as np
import torch

from finetune.evaluation.outcome import ParentPredictions
from finetune.evaluation.scoring import compute_logits
from finetune.modeling import saved_model
from finetune.modeling.kept_labels import labels_of
from finetune.runtime.console import print_line
from finetune.runtime.distributed import run_on_main_first
from finetune.training.session import Session


def predict_by_parent(session: Session) -> ParentPredictions | None:
    """The parent's logits on test, read as this run reads it. All processes call this.

    None where no head was kept, or test has no labels.
    """
    data, model, accelerator = session.data, session.recipe.model, session.env.accelerator
    if model.head_init != "keep" or data.corpus.test.labels is None:
        return None
    print_line(f"  scoring {model.source} on the same test documents")
    attention = "eager" if data.plan.attention == "eager" else "sdpa"
    parent, _ = run_on_main_first(
        accelerator,
        lambda: saved_model.load_classifier(
            data.tokens.source, attention, model.trust_remote_code, model.revision
        ),
    )
    torch.nn.Module.to(parent, accelerator.device)
    with session.env.meter("test"):
        logits = compute_logits(
            parent, data.tokens.tables["test"], accelerator, session.parts.plan.micro_batch_tokens
        )
    document = getattr(parent.config, "document", None) or {}
    thresholds = document.get("thresholds") if data.corpus.multi_label else None
    return ParentPredictions(
        model.source,
        labels_of(parent.config),
        logits,
        None if thresholds is None else np.array(thresholds, dtype=np.float64),
    )
