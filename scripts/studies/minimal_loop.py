"""The training loop with nothing around it: plain PyTorch and a transformers model.

    python scripts/studies/minimal_loop.py FOLDER

docs/textbook.md explains it; a test compares its weights with those of finetune.training.loop.fit.
"""

# mypy: disable-error-code="no-untyped-call"
import argparse

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer

EPOCHS, BATCH_SIZE, PEAK_LR, MOMENTUM, MAX_NORM = 3, 4, 0.1, 0.9, 1.0
TOY = {"The bank raised its rate.": 0, "Shares fell.": 0, "The coach won.": 1, "A late goal.": 1}


def train(model: torch.nn.Module, tokenize: Tokenizer, texts: list[str], labels: list[int]) -> None:
    """Stochastic gradient descent on the mean loss of the rows."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=PEAK_LR, momentum=MOMENTUM)
    per_epoch = -(-len(texts) // BATCH_SIZE)  # the last batch of an epoch may be short
    steps = EPOCHS * per_epoch
    model.train()
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([0, epoch]).permutation(len(texts))  # by seed and epoch
        rows = order[place * BATCH_SIZE : (place + 1) * BATCH_SIZE]
        batch = tokenize([texts[i] for i in rows], padding=True, return_tensors="pt")
        logits = model(**batch).logits  # (rows, classes)
        loss = cross_entropy(logits, torch.tensor([labels[i] for i in rows]))  # softmax is in here
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)  # as it was before clipping
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * (1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}  loss {loss.item():.4f}  gradient norm {norm.item():.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", metavar="FOLDER", help="an encoder, or its Hub id")
    source = parser.parse_args().encoder
    encoder = AutoModelForSequenceClassification.from_pretrained(source, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    train(encoder, tokenizer, list(TOY), list(TOY.values()))
