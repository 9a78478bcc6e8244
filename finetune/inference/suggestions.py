"""A model and unlabelled documents → those whose labels would teach it most.

    found = suggest(classifier, sources, columns, SuggestOptions(50))

The documents are read twice: once for how uncertain the model is of each, and again for the texts
of the candidates, of which just so many are held. Strategies (`STRATEGIES`):

- margin: the least difference between the two most probable labels (Scheffer et al. 2001);
- entropy: the highest entropy of the probabilities (Shannon);
- core_set: each the farthest from all before it (k-centre greedy: Sener & Savarese 2018);
- cluster_margin: the candidates of least margin in clusters, from which one after the other is
  taken, the smallest cluster first (Citovsky et al. 2021).

Distances are cosines between TF-IDF vectors, so that every engine serves. Whatever the strategy, no
document is suggested that is a near-duplicate of one that is. Margin and entropy suggest what they
would if all documents were candidates: only as many are read again as that takes. core_set looks at
20,000 documents at random where there are more.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.formats.source import DataSource, ReadProgress
from finetune.data.near_duplicates import find_near_duplicates
from finetune.inference.classifier import CHUNK_ROWS, Classifier
from finetune.inference.decision import DecisionRules
from finetune.inference.loaded_classifier import Prediction
from finetune.inference.records import Record, RequestedColumns, read_records

Floats = NDArray[np.float64]
Order = Iterator[int]

PER_SUGGESTION = 20  # candidates of least margin or highest entropy, at first
WIDER = 4  # times as many candidates, where near-duplicates leave too few
MOST_DRAWN = 20_000  # candidates of core_set, drawn at random
MANY = 10  # candidates for each of cluster_margin's, as in the paper
SEED = 0


@dataclass(frozen=True)
class SuggestOptions:
    """How many documents are suggested, and by which strategy."""

    count: int
    strategy: str = "margin"


@dataclass(frozen=True)
class Suggestion:
    """A document to label.

    Attributes:
        number: its row in all inputs, from 1.
        record: the row.
        prediction: what the model says of it.
        margin: between the two most probable labels; multi-label, of the least certain label to its
            threshold.
        entropy: of the probabilities, in nats; multi-label, summed over the labels.
    """

    number: int
    record: Record
    prediction: Prediction
    margin: float
    entropy: float


@dataclass(frozen=True)
class Suggestions:
    """What was found: the first teaches most.

    Attributes:
        read: documents that were read and can be classified.
        invalid: rows that cannot.
        near_duplicates: candidates that were left out for one that is suggested.
    """

    found: list[Suggestion]
    read: int
    invalid: int
    near_duplicates: int


def suggest(
    classifier: Classifier,
    sources: Sequence[DataSource],
    columns: RequestedColumns,
    options: SuggestOptions,
) -> Suggestions:
    """The documents to label next, at most as many as asked for.

    Raises:
        InputError: for what is wrong with a source as a whole.
    """
    strategy = STRATEGIES[options.strategy]
    numbers, margins, entropies, predictions, invalid = _classify(classifier, sources, columns)
    wanted, before = options.count, -1
    while True:  # where near-duplicates fill the candidates, more of these are looked at
        chosen = strategy.choose_candidates(margins, entropies, wanted)
        records = _read_rows(sources, columns, {int(number) for number in numbers[chosen]})
        texts = ["\n\n".join(records[int(number)].texts) for number in numbers[chosen]]
        order = strategy.order(texts, margins[chosen], options.count)
        taken, skipped = _take_distinct(order, _find_near(texts), options.count)
        if len(taken) == options.count or len(chosen) == before:
            break
        wanted, before = WIDER * wanted, len(chosen)
    found = [
        Suggestion(
            int(numbers[at]),
            records[int(numbers[at])],
            predictions(at),
            float(margins[at]),
            float(entropies[at]),
        )
        for at in chosen[taken].tolist()
    ]
    return Suggestions(found, len(numbers), invalid, skipped)


def _take_distinct(order: Order, near: Mapping[int, set[int]], count: int) -> tuple[list[int], int]:
    """The first candidates of which none is near another; how many were left out for these."""
    found: list[int] = []
    taken: set[int] = set()
    skipped = 0
    for i in order:
        if len(found) == count:
            break
        if near[i] & taken:
            skipped += 1
            continue
        taken.add(i)
        found.append(i)
    return found, skipped


def measure_uncertainty(probabilities: Floats, rules: DecisionRules) -> tuple[Floats, Floats]:
    """Margin and entropy of each row, as `Suggestion` has them. (rows,) each"""
    if rules.multi_label:
        thresholds = 0.5 if rules.thresholds is None else np.array(rules.thresholds)
        margins = np.abs(probabilities - thresholds).min(axis=1)
        both = np.stack([probabilities, 1 - probabilities])
        return margins, _entropy(both).sum(axis=(0, 2))
    highest = np.sort(probabilities, axis=1)
    return highest[:, -1] - highest[:, -2], _entropy(probabilities).sum(axis=1)


def _entropy(probabilities: Floats) -> Floats:
    return -probabilities * np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))


def _number_rows(
    sources: Sequence[DataSource], columns: RequestedColumns
) -> Iterator[tuple[int, Record]]:
    rows = (read_records(source, columns, ReadProgress()) for source in sources)
    return enumerate(itertools.chain.from_iterable(rows), start=1)


def _classify(
    classifier: Classifier, sources: Sequence[DataSource], columns: RequestedColumns
) -> tuple[NDArray[np.int64], Floats, Floats, Callable[[int], Prediction], int]:
    """The numbers of the rows that are documents, how uncertain each is, what is predicted of one
    of them, and how many rows are none."""
    rows, invalid = _number_rows(sources, columns), 0
    numbers: list[int] = []
    logits: list[NDArray[np.float32]] = []
    while chunk := [*itertools.islice(rows, CHUNK_ROWS)]:
        valid = [(number, record) for number, record in chunk if record.error is None]
        invalid += len(chunk) - len(valid)
        if not valid:
            continue
        found = classifier.engine.logits(classifier.encode([record for _, record in valid]))
        is_finite: Any = np.isfinite(found).all(axis=1)
        invalid += int((~is_finite).sum())
        numbers += [number for (number, _), fine in zip(valid, is_finite, strict=True) if fine]
        logits.append(found[is_finite])
    every = np.concatenate([np.zeros((0, len(classifier.labels)), np.float32), *logits])
    margins, entropies = measure_uncertainty(
        classifier.rules.probabilities(every), classifier.rules
    )

    rules = dataclasses.replace(classifier.rules, detector=None)  # of all that it is asked for

    def predict(at: int) -> Prediction:
        return next(rules.decide(every[at : at + 1], False))

    return np.array(numbers, dtype=np.int64), margins, entropies, predict, invalid


def _read_rows(
    sources: Sequence[DataSource], columns: RequestedColumns, numbers: set[int]
) -> dict[int, Record]:
    rows = _number_rows(sources, columns)
    return {number: record for number, record in rows if number in numbers}


def _find_near(texts: Sequence[str]) -> dict[int, set[int]]:
    """Each candidate's near-duplicates among the others."""
    pairs = find_near_duplicates(texts)
    # Of texts with the same words, only the first has pairs with others.
    leader = np.arange(len(texts))
    same = pairs.overlap == 1
    leader[pairs.second[same]] = pairs.first[same]
    members: dict[int, set[int]] = {}
    for i, first in enumerate(leader.tolist()):
        members.setdefault(first, set()).add(i)
    linked: dict[int, set[int]] = {first: {first} for first in members}
    for one, other in zip(pairs.first[~same].tolist(), pairs.second[~same].tolist(), strict=True):
        linked[one].add(other)
        linked[other].add(one)
    whole = {first: set().union(*(members[i] for i in all_)) for first, all_ in linked.items()}
    return {i: whole[first] - {i} for i, first in enumerate(leader.tolist())}


def _vectors(texts: Sequence[str]) -> Any:
    """TF-IDF vectors of length 1, sparse; of parts of words where texts have no words. (rows, …)"""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    except ValueError:  # not a word in all of them
        return TfidfVectorizer(analyzer="char", sublinear_tf=True).fit_transform(texts)


def _least_first(values: Floats, count: int) -> NDArray[np.int64]:
    order: NDArray[np.int64] = np.argsort(values, kind="stable")[:count]
    return order


def _draw_candidates(margins: Floats, entropies: Floats, count: int) -> NDArray[np.int64]:
    """Rows at random where there are many, the least certain first."""
    rows = np.arange(len(margins))
    if len(rows) > MOST_DRAWN:
        rows = np.sort(np.random.default_rng(SEED).permutation(len(rows))[:MOST_DRAWN])
    drawn: NDArray[np.int64] = rows[np.argsort(margins[rows], kind="stable")]
    return drawn


def _in_order(texts: Sequence[str], margins: Floats, count: int) -> Order:
    return iter(range(len(texts)))


def _farthest_first(texts: Sequence[str], margins: Floats, count: int) -> Order:
    if not texts:
        return
    vectors = _vectors(texts)
    nearest = np.full(len(texts), np.inf)  # cosine distance to the nearest that was taken
    at = 0
    for _ in range(len(texts)):
        yield at
        similarity = (vectors @ vectors[at].T).toarray().ravel()
        nearest = np.minimum(nearest, 1 - similarity)
        nearest[at] = -np.inf
        at = int(nearest.argmax())


def _from_clusters(texts: Sequence[str], margins: Floats, count: int) -> Order:
    """One of each cluster in turn, the least certain first."""
    from sklearn.cluster import KMeans

    if len(texts) <= count:
        yield from range(len(texts))
        return
    clusters = KMeans(count, n_init=1, random_state=SEED).fit_predict(_vectors(texts))
    members = [[*np.flatnonzero(clusters == cluster)] for cluster in np.unique(clusters)]
    members.sort(key=lambda own: (len(own), own[0]))
    for turn in itertools.count():
        those = [int(own[turn]) for own in members if turn < len(own)]
        if not those:
            return
        yield from those


@dataclass(frozen=True)
class Strategy:
    """A way of choosing.

    Attributes:
        choose_candidates: margins, entropies and how many are wanted → rows.
        order: the candidates' texts, their margins, how many → the candidates, the best first.
    """

    choose_candidates: Callable[[Floats, Floats, int], NDArray[np.int64]]
    order: Callable[[Sequence[str], Floats, int], Order]


STRATEGIES = {
    "margin": Strategy(lambda m, _, count: _least_first(m, PER_SUGGESTION * count), _in_order),
    "entropy": Strategy(lambda _, e, count: _least_first(-e, PER_SUGGESTION * count), _in_order),
    "core_set": Strategy(_draw_candidates, _farthest_first),
    "cluster_margin": Strategy(lambda m, _, count: _least_first(m, MANY * count), _from_clusters),
}
