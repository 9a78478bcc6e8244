"""A classifier and the labels of other data → the rows of its head that are kept, by name.

    known = match_labels(config, source, options, labels, multi_label=False)
    known.describe()          # "70 labels of … keep their weights; 7 are new: …"
    keep_rows(model, known, labels, options, …)

Label systems grow, and lose labels. What a classifier learned of the labels that stay is kept, and
only the new ones have everything to learn.
"""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from finetune.config.schema import Model
from finetune.modeling import head as head_module
from finetune.modeling.modeling_document_classifier import DocumentClassifierConfig
from finetune.modeling.pretrained import load_tokenizer
from finetune.runtime.errors import InputError, shorten
from finetune.runtime.wording import count_of

MULTI_LABEL = "multi_label_classification"


@dataclass(frozen=True)
class KeptLabels:
    """The labels of a source beside those of the data.

    Attributes:
        source: as the recipe names it.
        of_source: all labels of the source, in the order of its logits.
        kept, new: labels of the data that the source knows, and that it does not.
        gone: labels of the source that the data lack.
    """

    source: str
    of_source: tuple[str, ...]
    kept: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]

    def describe(self, start: str) -> str:
        """What is kept, new and gone, in a sentence.

        Args:
            start: what new labels begin with, `model.new_labels`.
        """
        keep = "keeps" if len(self.kept) == 1 else "keep"
        parts = [f"{count_of(len(self.kept), 'label')} {keep} the weights of {self.source}"]
        if self.new:
            way = "their names" if start == "label_names" else "zeros"
            parts.append(f"{len(self.new):,} new, from {way}: {shorten(self.new, 10)}")
        if self.gone:
            parts.append(f"{len(self.gone):,} no longer in the data: {shorten(self.gone, 10)}")
        return "; ".join(parts)


def labels_of(config: PretrainedConfig) -> tuple[str, ...]:
    """The label names of a classifier, in the order of its logits."""
    by_index: dict[Any, str] = {**(config.id2label or {})}
    return tuple(str(by_index[index]) for index in sorted(by_index))


def match_labels(
    config: PretrainedConfig,
    source: str,
    options: Model,
    labels: Sequence[str],
    multi_label: bool,
) -> KeptLabels:
    """Which labels keep their weights.

    Args:
        config: the source's.
        labels: of the data.

    Raises:
        InputError: where the source's head cannot be kept, or knows none of the labels.
    """
    problems = _find_misfits(config, options, multi_label)
    of_source = labels_of(config)
    kept = tuple(label for label in labels if label in of_source)
    if not problems and not kept:
        problems = [
            "model.head_init: keep: expected a model.source that knows some of the data's labels "
            f"({shorten(labels)}), found {shorten(of_source)} in '{source}'; name the classifier "
            "that was trained on them, or set model.head_init=zeros or label_names"
        ]
    if problems:
        raise InputError(problems)
    new = tuple(label for label in labels if label not in of_source)
    gone = tuple(label for label in of_source if label not in labels)
    return KeptLabels(options.source, of_source, kept, new, gone)


def _find_misfits(config: PretrainedConfig, options: Model, multi_label: bool) -> list[str]:
    """Why the head of a source cannot be kept."""
    ours = isinstance(config, DocumentClassifierConfig)
    classes = config.architectures or []
    if not ours and not any(name.endswith("ForSequenceClassification") for name in classes):
        return [
            "model.head_init: keep: expected a model.source that is a trained classifier, such as "
            f"a run folder, found an encoder without a head in '{options.source}'"
        ]
    if ours != (options.head == "linear"):
        theirs = "linear" if ours else "native"
        return [
            f"model.head: expected {theirs} with model.head_init 'keep', as the source has it, "
            f"got '{options.head}'"
        ]
    problems = []
    if ours:
        problems = [
            f"model.{key}: expected {_show(getattr(config, key))} with model.head_init 'keep', as "
            f"the source's head was trained, got {_show(getattr(options, key))}"
            for key in ("pooling", "pooled_norm")
            if getattr(config, key) != getattr(options, key)
        ]
    if getattr(config, "ordered", False):
        problems.append(
            "model.head_init: keep: expected a source whose labels have rows of their own, found "
            "one of ordered labels, whose rows are the steps between them; set "
            "model.head_init=zeros"
        )
    if getattr(config, "tasks", None):
        problems.append(
            "model.head_init: keep: expected a source of one task, found one of several "
            "(data.tasks), whose rows are not those of such labels; set model.head_init=zeros"
        )
    elif (config.problem_type == MULTI_LABEL) != multi_label:
        several, one = "several labels for a document", "one label for each document"
        problems.append(
            f"model.head_init: keep: expected a source that predicts "
            f"{several if multi_label else one}, as the data have, found one that predicts "
            f"{one if multi_label else several}; set model.head_init=zeros or label_names"
        )
    return problems


def _show(value: object) -> str:
    """A value as a recipe writes it."""
    return "null" if value is None else repr(value)


@torch.no_grad()
def keep_rows(
    model: PreTrainedModel,
    known: KeptLabels,
    labels: Sequence[str],
    options: Model,
    source: str,
    priors: Sequence[float] | None,
) -> None:
    """Give a classifier other labels: known ones keep their rows of the head, new ones begin.

    A softmax takes away what is alike in all rows, so a new row begins with their mean, and its
    label neither gains nor loses by it. A sigmoid does not: there it begins with zeros, and with
    the share of train's rows that have the label.

    Args:
        model: with the head and the labels of its source.
        source: its folder or Hub id.
        priors: as of `build.build_classifier`.

    Raises:
        InputError: as `head.initialize_from_names` does.
    """
    head = head_module.find_head(model)
    size, at = len(labels), {label: i for i, label in enumerate(known.of_source)}
    weight = torch.zeros(size, head.in_features)
    bias = torch.zeros(size)
    if priors is None:
        weight += head.weight.mean(dim=0)
        bias += 0 if head.bias is None else head.bias.mean()
    else:
        bias += head_module.log_odds(priors)
    if known.new and options.new_labels == "label_names":
        tokenizer = load_tokenizer(source, options)
        names = head_module.read_names(model, tokenizer, labels, "model.new_labels")
        weight += head_module.weights_of_names(names)
    for i, label in enumerate(labels):
        if label in at:
            weight[i] = head.weight[at[label]]
            bias[i] = 0 if head.bias is None else head.bias[at[label]]
    head.weight = nn.Parameter(weight)
    if head.bias is not None:
        head.bias = nn.Parameter(bias)
    head.out_features = size
    if hasattr(model, "num_labels"):
        setattr(model, "num_labels", size)  # noqa: B010 # a module's attributes are not typed
