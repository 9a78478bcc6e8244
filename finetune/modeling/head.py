"""A classifier → the linear layer that makes its logits: where it is, and what it starts with.

head = find_head(model)
with record_inputs(head) as vectors:  # what it reads of each batch
    model(**batch)
"""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.modeling.modeling_document_classifier import DocumentClassifier
from finetune.modeling.pretrained import max_positions
from finetune.runtime.console import print_wrapped
from finetune.runtime.errors import InputError, shorten

# model.head_init: label_names; so that the nearest name's logit is about one half.
NAMES_SCALE = 4.0


def find_head(model: PreTrainedModel) -> nn.Linear:
    """The layer that makes the logits: the last linear one with as many outputs as labels.

    Of ordered labels, it has one less.

    Raises:
        InputError: where there is none.
    """
    return _named(model)[1]


def head_name(model: PreTrainedModel) -> str:
    """The head's name in the model, such as `classifier`."""
    return _named(model)[0]


def _named(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    if isinstance(model, DocumentClassifier):
        return "classifier", model.classifier
    is_ordered = bool(getattr(model.config, "ordered", False))
    size = int(model.config.num_labels or 0) - is_ordered
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == size
    ]
    if not layers:
        raise InputError(
            f"model.head: 'native' needs a class that ends in a linear layer, found none in "
            f"{type(model).__name__}; set model.head=linear"
        )
    return layers[-1]


@contextmanager
def record_inputs(head: nn.Linear) -> Iterator[list[torch.Tensor]]:
    """A head's inputs while this lasts, (rows, hidden), call by call."""
    recorded: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: recorded.append(inputs[0]))
    try:
        yield recorded
    finally:
        hook.remove()


@torch.no_grad()
def initialize_head(head: nn.Linear, how: str, seed: int) -> None:
    """Zeros, or weights drawn by a seed (normal, std 0.02)."""
    if how == "normal":
        head.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(seed))
    else:
        head.weight.zero_()
    if head.bias is not None:
        head.bias.zero_()


@torch.no_grad()
def initialize_ordered(head: nn.Linear) -> None:
    """Set the bias of a head of ordered labels so that all of them are equally likely.

    Of the labels that are not below label k, 1 / (their number) is label k itself.
    """
    above = torch.arange(head.out_features, 0, -1)
    head.bias.copy_(above.log())


@torch.no_grad()
def initialize_at_priors(head: nn.Linear, priors: Sequence[float]) -> None:
    """Set the bias so that each label of a multi-label head is as likely as it is in train.

    From one half each, the first steps of a run would only learn that most labels are rare: of few
    rows, these are all the steps there are (Lin et al. 2017, arXiv 1708.02002, section 4.1). A head
    without a bias, as GPT-2's own, stays at one half, with a warning.

    Args:
        priors: above 0 and below 1. (labels,)
    """
    if head.bias is not None:
        head.bias.copy_(log_odds(priors))
    elif any(prior != 0.5 for prior in priors):
        print_wrapped(
            "model.head: native: this class's own head has no bias, so a new one starts with each "
            "label at one half; that of model.head=linear starts at its share of train, which "
            "matters where steps are few",
            mark="  ! ",
        )


def log_odds(priors: Sequence[float]) -> torch.Tensor:
    """The logits at which sigmoids give these probabilities. (labels,)"""
    return torch.logit(torch.tensor(priors, dtype=torch.float64)).float()


@torch.no_grad()
def initialize_from_names(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]
) -> None:
    """Each label's weights: what its name, read as a document, has apart from the other names.

    Raises:
        InputError: for a name without a token, and a head that reads no documents.
    """
    head, names = find_head(model), read_names(model, tokenizer, labels)
    head.weight.copy_(weights_of_names(names))
    if head.bias is not None:
        head.bias.zero_()


def weights_of_names(names: torch.Tensor) -> torch.Tensor:
    """What each name's vector has apart from the others, as weights. (labels, hidden)"""
    apart = names - names.mean(dim=0)
    # By the names' own length, the logits do not depend on that of the encoder's vectors.
    weights: torch.Tensor = NAMES_SCALE * apart / names.norm(dim=1).mean() ** 2
    return weights


@torch.no_grad()
def read_names(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    key: str = "model.head_init",
) -> torch.Tensor:
    """What the head reads of each label's name, as a document. (labels, hidden)

    Args:
        key: of the recipe, which asks for it.

    Raises:
        InputError: as `initialize_from_names` does.
    """
    model.eval()
    head, longest = find_head(model), max_positions(model.config)
    with record_inputs(head) as vectors:
        for label in labels:
            cut = {"truncation": True, "max_length": longest, "return_token_type_ids": False}
            read = tokenizer(label.replace("_", " "), **cut)
            if not read["input_ids"]:
                raise InputError(
                    f"{key}: label_names: the tokenizer finds no token in the label {label!r}; "
                    f"name it by data.labels, or set {key}=zeros"
                )
            model(**{key: torch.tensor([value]) for key, value in read.items()})
    if vectors[0].dim() != 2:  # such as decoders', which pick a token's logits afterwards
        others = "zeros or normal" if key == "model.head_init" else f"{key}=zeros"
        raise InputError(
            f"{key}: label_names: expected a head that reads one vector of each document, and "
            f"{type(model).__name__}'s reads each token; set model.head=linear, or {others}"
        )
    names = torch.cat(vectors)  # (labels, hidden)
    _warn_of_names(labels, names, key)
    return names


def _warn_of_names(labels: Sequence[str], names: torch.Tensor, key: str) -> None:
    """Warn of names without a word, and of those that the encoder cannot tell apart."""
    wordless = [repr(name) for name in labels if not any(map(str.isalpha, name))]
    far = torch.cdist(names, names, compute_mode="donot_use_mm_for_euclid_dist")
    same_vector = (far < 1e-4 * names.norm(dim=1).mean()).tril(-1).nonzero().tolist()
    same = [f"{labels[one]!r} and {labels[other]!r}" for other, one in same_vector]
    for which, what in (
        (wordless, f"no word in {shorten(wordless)}"),
        (same, f"the encoder gives the same vector to {shorten(same)}"),
    ):
        if which:
            print_wrapped(
                f"{key}: label_names: {what}, so the head starts with little to tell by; "
                "data.labels may name the labels in words",
                mark="  ! ",
            )
