"""Labelled rows → those whose label is most likely wrong, in order, for a person to go through.

    suspects = find_suspects(recipe, corpus, [corpus.train, corpus.validation])
    write_suspects(suspects, Path("suspects.csv"))

A model that was trained on a row has learned its label, right or wrong. So each row is scored by
one that never saw it: the encoder as it came, frozen, makes a vector of each document, and a
logistic regression on four fifths of them scores the last fifth, five times over. That is no
fine-tuning: it takes one pass through the encoder, and knows the labels less well than a
fine-tuned model would. From these probabilities, cleanlab ranks the rows by how little they speak
for the given label, and tells which are likely wrong (confident learning, Northcutt et al. 2021,
arXiv 1911.00068).
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from transformers import PreTrainedModel

from finetune.compute import hardware_plan, micro_batches, packing
from finetune.compute.padding_masks import kept_padding_masks
from finetune.config import schema
from finetune.data.corpus import Corpus, Split, label_names_of
from finetune.modeling import build, head, pretrained
from finetune.modeling.model_folder import find_model
from finetune.runtime import atomic_files
from finetune.runtime.commands import install
from finetune.runtime.errors import InputError
from finetune.tokenization import document_format, encoding
from finetune.tokenization.token_table import TokenTable

FOLDS = 5
TEXT = 1000  # characters of a text that are written


@dataclass(frozen=True)
class Suspect:
    """A row whose label may be wrong; None where its label has too few rows to be checked."""

    rank: int | None
    row: str  # its place: "train.csv: row 12"
    label: str
    suggested: str | None
    score: float | None  # of the label, 0 to 1: the lower, the more likely it is wrong
    likely_wrong: bool | None  # what confident learning counts among the wrong ones
    text: str
    id: Any = None  # of data.id


def require_cleanlab() -> None:
    """
    Raises:
        InputError: where cleanlab is not installed.
    """
    try:
        import cleanlab  # noqa: F401
    except ImportError:
        raise InputError(
            f"cleanlab ranks the rows, and is not installed; {install('suspects')}"
        ) from None


def find_suspects(recipe: schema.Recipe, corpus: Corpus, splits: Sequence[Split]) -> list[Suspect]:
    """All rows of some splits by a recipe's encoder, as `rank_suspects` has them.

    Raises:
        InputError: where the encoder cannot be had, or fewer than two labels can be checked.
    """
    vectors = np.concatenate(pooled_states(recipe, corpus, splits))
    return rank_suspects(splits, vectors, corpus.labels, recipe.run.seed)


def pooled_states(
    recipe: schema.Recipe, corpus: Corpus, splits: Sequence[Split]
) -> list[NDArray[np.float32]]:
    """The pooled states of a recipe's pretrained encoder: (rows, hidden) for each split.

    Raises:
        InputError: where the encoder cannot be had.
    """
    plan = hardware_plan.plan_hardware(recipe.model, recipe.train)
    hardware_plan.apply_plan(plan)
    source = find_model(recipe.model.source, "model.source")
    if recipe.model.is_static:  # the encoder itself tells documents apart better
        encoder = recipe.model.model_copy(update={"source": source})
        recipe = recipe.model_copy(update={"model": encoder})
    config = pretrained.load_config(source, recipe.model)
    tokenizer = pretrained.load_tokenizer(source, recipe.model)
    longest = encoding.resolve_max_length(recipe.data.max_length, pretrained.max_positions(config))
    reading = document_format.DocumentFormat.of_recipe(recipe.data, longest)
    classifier = build.build_classifier(
        source, recipe.model, corpus.labels, plan.attention, seed=0, priors=corpus.priors()
    )
    plan = packing.plan_packing(plan, recipe, config)
    torch.nn.Module.to(classifier, plan.device)
    packed = (
        packing.attach_packing(classifier, plan.precision, learns=False)
        if plan.packed
        else packing.leave_padded(classifier, plan.device)
    )
    vectors = []
    for split in splits:
        table = packed.table(reading.encode(split.texts, split.seconds, tokenizer))
        with torch.autocast(plan.device, torch.bfloat16, enabled=plan.precision == "bf16"):
            vectors.append(head_inputs(classifier, table, plan.micro_batch_tokens))
    return vectors


@torch.no_grad()
def head_inputs(
    model: PreTrainedModel, table: TokenTable, micro_batch_tokens: int
) -> NDArray[np.float32]:
    """What a model's head takes of each document. (rows, hidden)"""
    vectors: NDArray[np.float32] | None = None
    layer = head.find_head(model)
    with head.record_inputs(layer) as given, kept_padding_masks(model.device.type):
        for rows in micro_batches.split_rows(table, np.arange(len(table)), micro_batch_tokens):
            model(**table.batch(rows, model.device))
            pooled = table.pooled(given.pop().float(), rows).cpu().numpy()
            if vectors is None:
                vectors = np.zeros((len(table), pooled.shape[1]), dtype=np.float32)
            vectors[rows] = pooled
    assert vectors is not None
    return vectors


def out_of_sample_probabilities(
    vectors: NDArray[np.float32], labels: NDArray[Any], seed: int
) -> Any:
    """Each row's probabilities by a regression that never saw it. (rows, classes)

    Args:
        labels: class ids (rows,), or 0 and 1 (rows, classes); each class has some row.
    """
    multi_label = labels.ndim == 2
    classes = labels.shape[1] if multi_label else int(labels.max()) + 1
    probabilities = np.zeros((len(labels), classes))
    make = KFold if multi_label else StratifiedKFold
    regression = LogisticRegression(C=1.0, max_iter=300)
    centred = (vectors - vectors.mean(axis=0)) / (vectors.std(axis=0) + 1e-6)
    for train, rest in make(FOLDS, shuffle=True, random_state=seed).split(centred, labels):
        model: Any = OneVsRestClassifier(regression) if multi_label else regression
        model.fit(centred[train], labels[train])
        columns = np.arange(classes) if multi_label else model.classes_
        probabilities[np.ix_(rest, columns)] = model.predict_proba(centred[rest])
    return probabilities


def rank_suspects(
    splits: Sequence[Split], vectors: NDArray[np.float32], names: Sequence[str], seed: int
) -> list[Suspect]:
    """All rows of some splits, the most suspicious first; last those that cannot be checked.

    A row cannot be where its label has fewer rows than there are folds: of some fold's label, the
    others would know nothing.

    Args:
        vectors: as of `head_inputs`, of the splits' rows one after the other.

    Raises:
        InputError: where fewer than two labels can be checked.
    """
    labels = np.concatenate([split.labels for split in splits if split.labels is not None])
    multi_label = labels.ndim == 2
    counts = labels.sum(axis=0) if multi_label else np.bincount(labels, minlength=len(names))
    # The labels that are checked: cleanlab knows none that does not occur.
    there = np.flatnonzero(counts >= (1 if multi_label else FOLDS))
    if len(there) < 2:
        raise InputError(
            f"expected two labels or more with at least {FOLDS} rows each, as many as folds, got "
            f"{len(there)}"
        )
    is_checked = np.ones(len(labels), bool) if multi_label else np.isin(labels, there)
    checked, unchecked = np.flatnonzero(is_checked), np.flatnonzero(~is_checked)
    ids = labels[:, there] if multi_label else np.searchsorted(there, labels[checked])
    probabilities = out_of_sample_probabilities(vectors[checked], ids, seed)
    scores, wrong, better = _judge_labels(ids, probabilities)
    places = [split.places.place(i) for split in splits for i in range(len(split))]
    texts = [text for split in splits for text in split.whole()]
    identifiers = [one for split in splits for one in split.ids or [None] * len(split)]
    here = [names[int(c)] for c in there]
    ranked = [
        Suspect(
            rank=n,
            row=places[checked[i]],
            label=", ".join(label_names_of(ids[i], here)),
            suggested=", ".join(label_names_of(better[i], here)),
            score=round(float(scores[i]), 6),
            likely_wrong=bool(wrong[i]),
            text=texts[checked[i]][:TEXT],
            id=identifiers[checked[i]],
        )
        for n, i in enumerate(np.argsort(scores, kind="stable").tolist(), 1)
    ]
    rest = [
        Suspect(
            None,
            places[i],
            names[int(labels[i])],
            None,
            None,
            None,
            texts[i][:TEXT],
            identifiers[i],
        )
        for i in unchecked.tolist()
    ]
    return ranked + rest


def measure_agreement(checked: Sequence[Suspect]) -> tuple[float, float]:
    """How many labels are as the check predicts them, of rows that it had not seen; and by chance.

    Returns: the share of rows whose label, or set of labels, is the suggested one; and the share
        that has the commonest, which to predict always would reach.
    """
    counts = Counter(one.label for one in checked)
    right = sum(one.label == one.suggested for one in checked)
    return right / len(checked), max(counts.values()) / len(checked)


def _judge_labels(ids: NDArray[Any], probabilities: Any) -> tuple[Any, Any, Any]:
    """How good each row's label is, whether it is likely wrong, and what may be right instead."""
    from cleanlab import filter as issues
    from cleanlab import multilabel_classification as multilabel
    from cleanlab import rank as quality

    if ids.ndim == 2:
        sets = [np.flatnonzero(row).tolist() for row in ids]
        scores = multilabel.get_label_quality_scores(sets, probabilities)
        wrong = multilabel.filter.find_label_issues(sets, probabilities)
        return scores, wrong, (probabilities >= 0.5).astype(np.int64)
    scores = quality.get_label_quality_scores(ids, probabilities, method="normalized_margin")
    wrong = issues.find_label_issues(ids, probabilities, n_jobs=1)
    return scores, wrong, probabilities.argmax(axis=1)


def write_suspects(suspects: Sequence[Suspect], file: Path) -> None:
    """As csv where the name ends so, else as JSON Lines; with `id` where some row has one."""
    has_ids = any(suspect.id is not None for suspect in suspects)
    names = [
        "rank",
        "row",
        *["id"] * has_ids,
        "label",
        "suggested",
        "score",
        "likely_wrong",
        "text",
    ]
    rows = [{name: asdict(suspect)[name] for name in names} for suspect in suspects]
    if file.suffix.lower() != ".csv":
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        atomic_files.write_text(file, "".join(lines))
        return
    out = io.StringIO()
    table = csv.DictWriter(out, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    atomic_files.write_text(file, out.getvalue())


def score_against_truth(suspects: Sequence[Suspect], truth: Mapping[str, str]) -> NDArray[np.bool_]:
    """Whether each row's label is wrong, in the order of `suspects`. (rows,)

    Args:
        truth: the right label of each row, by its place.
    """
    return np.array([truth[suspect.row] != suspect.label for suspect in suspects])
