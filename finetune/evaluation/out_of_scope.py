"""Train and validation as a model sees them → a detector of documents that no label fits.

    chosen = choose_detector(train, validation)          # by labels that are held out in turn
    detector = fit_detector(chosen.kind, train, validation, rate=0.05)
    detector.score(logits, states) > detector.threshold  # which documents are out of scope

Four ways to score, each the higher the less a document belongs to any label: one less the highest
probability (Hendrycks & Gimpel 2017, arXiv 1610.02136), the energy of the logits (Liu et al. 2020,
arXiv 2010.03759), the distance to the nearest train documents (Sun et al. 2022, arXiv 2204.06507),
and Mahalanobis' to the nearest label's mean (Lee et al. 2018, arXiv 1807.03888). Distances are
between states: what the head reads of a document.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.probabilities import softmax
from finetune.runtime.errors import InputError

MOST_STATES = 10_000  # of train, that are kept and compared with
MOST_TRIED = 2_000  # validation documents by which the way is chosen
NEIGHBOURS = 5
GROUPS = 10  # of labels that are held out together
AT_ONCE = 1024  # documents that are compared with all states
CURVE = np.linspace(0, 1, 41)
LEAST_LABELS = 3  # one is held out, and two are left to be told apart

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Seen:
    """Documents as a model sees them.

    Attributes:
        logits: (rows, classes)
        states: (rows, hidden)
        labels: (rows,)
    """

    logits: NDArray[np.float32]
    states: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Any) -> "Seen":
        return Seen(self.logits[rows], self.states[rows], self.labels[rows])


@dataclass(frozen=True)
class Detector:
    """Scores documents, and calls those above a threshold out of scope.

    Attributes:
        kind: of `KINDS`.
        threshold: of the score.
        rate: the share of documents of known labels that is called out of scope by mistake.
        arrays: what the kind compares with, by name.
    """

    kind: str
    threshold: float
    rate: float
    arrays: Mapping[str, NDArray[Any]]

    def score(self, logits: NDArray[np.float32], states: NDArray[np.float32]) -> Floats:
        """How little each document belongs to any label. (rows,)

        Args:
            states: (rows, hidden); of a kind that reads none, (rows, 0).
        """
        return KINDS[self.kind].score(logits, states, self.arrays)


@dataclass(frozen=True)
class Kind:
    """A way to score.

    Attributes:
        fit: train → what is compared with.
        score: logits, states, what is compared with → a score of each document.
        reads_states: whether it needs more than logits.
        reads_sizes: whether it needs logits whose sizes say something. Those of ordered labels are
            log-probabilities, whose energy is 0 whatever the document.
    """

    fit: Callable[[Seen], dict[str, NDArray[Any]]]
    score: Callable[[NDArray[np.float32], NDArray[np.float32], Mapping[str, NDArray[Any]]], Floats]
    reads_states: bool = True
    reads_sizes: bool = False


@dataclass(frozen=True)
class Choice:
    """How well each way tells labels that it was not told of.

    Attributes:
        kind: the best.
        groups: how often labels were held out, all of them once.
        aurocs: by kind, of each group.
        curve: of the best: the share of held-out documents that is found, for each share of the
            others (`CURVE`) that is found too.
    """

    kind: str
    groups: int
    aurocs: Mapping[str, Floats]
    curve: Floats

    def interval(self, kind: str) -> Interval:
        """Student's 95 % interval of the mean over the groups of labels."""
        from scipy import stats  # here and below: who only predicts waits for none of it

        values = self.aurocs[kind]
        half = float(stats.t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / len(values) ** 0.5
        return max(0.0, float(values.mean() - half)), min(1.0, float(values.mean() + half))


def choose_detector(train: Seen, validation: Seen, seed: int = 0, ordered: bool = False) -> Choice:
    """Hold out every label once, some together, and see which way finds their validation documents.

    A held-out label's train documents and logits are left out, as if the head had never known it;
    the encoder has, so that documents of labels that nobody named are harder to find.

    Args:
        train, validation: of three labels or more; validation has documents of two or more.
        ordered: whether the labels are ordered.

    Raises:
        InputError: where validation has documents of one label alone.
    """
    kinds = {name: kind for name, kind in KINDS.items() if not (ordered and kind.reads_sizes)}
    rng = np.random.default_rng(seed)
    train, validation = draw_rows(train, MOST_STATES), draw_rows(validation, MOST_TRIED)
    classes = train.logits.shape[1]
    present = np.unique(validation.labels)
    if len(present) < 2:
        raise InputError("expected validation documents of two labels or more, found those of one")
    groups = np.array_split(rng.permutation(present), min(GROUPS, len(present)))
    aurocs: dict[str, list[float]] = {kind: [] for kind in kinds}
    curves: dict[str, list[Floats]] = {kind: [] for kind in kinds}
    for group in groups:
        is_new = np.isin(validation.labels, group)
        kept = np.setdiff1d(np.arange(classes), group)
        known = train.take(~np.isin(train.labels, group))
        for name, kind in kinds.items():
            scores = kind.score(validation.logits[:, kept], validation.states, kind.fit(known))
            aurocs[name].append(measure_auroc(scores[is_new], scores[~is_new]))
            curves[name].append(find_curve(scores[is_new], scores[~is_new]))
    of_kind = {name: np.array(values) for name, values in aurocs.items()}
    best = max(kinds, key=lambda name: of_kind[name].mean())  # of several, the simplest
    return Choice(best, len(of_kind[best]), of_kind, np.mean(curves[best], axis=0))


def fit_detector(kind: str, train: Seen, validation: Seen, rate: float) -> Detector:
    """A detector that calls at most this share of documents like validation's out of scope.

    The threshold is the score that `calibration_rank` names (Vovk et al. 2005): for a new document
    like those of validation, the chance to be above it is `rate` at most, however scores are
    distributed.
    """
    arrays = KINDS[kind].fit(draw_rows(train, MOST_STATES))
    scores = np.sort(KINDS[kind].score(validation.logits, validation.states, arrays))
    threshold = float(scores[calibration_rank(len(scores), rate) - 1])
    return Detector(kind, threshold, rate, arrays)


def calibration_rank(rows: int, rate: float) -> int:
    """Which of so many scores, from the lowest on, is the threshold; more than `rows`: none is."""
    return math.ceil((rows + 1) * (1 - rate))


def least_rows(rate: float) -> int:
    """The fewest documents that a threshold with this rate can be chosen on."""
    return math.ceil(1 / rate) - 1


def draw_rows(seen: Seen, most: int) -> Seen:
    """All rows, or as many at random, the same each time."""
    if len(seen) <= most:
        return seen
    return seen.take(np.sort(np.random.default_rng(0).permutation(len(seen))[:most]))


def measure_auroc(new: Floats, known: Floats) -> float:
    """The chance that a new document has a higher score than a known one."""
    from scipy import stats

    ranks = stats.rankdata(np.concatenate([new, known]))
    return float((ranks[: len(new)].sum() / len(new) - (len(new) + 1) / 2) / len(known))


def auroc_interval(new: Floats, known: Floats) -> Interval:
    """Its 95 % interval over documents of both kinds (DeLong et al. 1988), on the logit scale.

    Of scores that do not overlap, it ends at 1 and begins where so few documents would overlap by
    chance one time in twenty.
    """
    from scipy import special, stats

    value = measure_auroc(new, known)
    both = stats.rankdata(np.concatenate([new, known]))
    above = (both[: len(new)] - stats.rankdata(new)) / len(known)
    below = 1 - (both[len(new) :] - stats.rankdata(known)) / len(new)
    fewest = min(len(new), len(known))
    if fewest < 2 or not 0 < value < 1:
        reach = 1 - 0.05 ** (1 / fewest)
        return (1 - reach, 1.0) if value == 1 else (0.0, min(1.0, max(value, reach)))
    variance = above.var(ddof=1) / len(new) + below.var(ddof=1) / len(known)
    half = 1.96 * math.sqrt(variance) / (value * (1 - value))
    centre = special.logit(value)
    return float(special.expit(centre - half)), float(special.expit(centre + half))


def find_curve(new: Floats, known: Floats) -> Floats:
    """The share of new documents found, for each share of known ones (`CURVE`) found as well."""
    thresholds = np.quantile(known, 1 - CURVE, method="higher")
    found: Floats = (new[None] > thresholds[:, None]).mean(axis=1)
    found[-1] = 1.0
    return found


def _fit_nothing(train: Seen) -> dict[str, NDArray[Any]]:
    return {}


def _score_probability(logits: Any, states: Any, arrays: Any) -> Floats:
    scores: Floats = 1 - softmax(logits).max(axis=1)
    return scores


def _score_energy(logits: Any, states: Any, arrays: Any) -> Floats:
    exact = logits.astype(np.float64)
    highest = exact.max(axis=1)
    scores: Floats = -highest - np.log(np.exp(exact - highest[:, None]).sum(axis=1))
    return scores


def _normalize(states: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(states, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (states / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit


def _keep_states(train: Seen) -> dict[str, NDArray[Any]]:
    return {"states": _normalize(train.states).astype(np.float16)}


def _in_chunks(states: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(states), AT_ONCE):
        yield states[start : start + AT_ONCE]


def _score_neighbours(logits: Any, states: Any, arrays: Mapping[str, NDArray[Any]]) -> Floats:
    """The mean cosine distance to the nearest train documents."""
    kept = arrays["states"].astype(np.float32)
    count = min(NEIGHBOURS, len(kept))
    found = [np.zeros(0)]
    for some in _in_chunks(_normalize(states)):
        nearest = np.partition(some @ kept.T, len(kept) - count, axis=1)[:, len(kept) - count :]
        found.append(1 - nearest.astype(np.float64).mean(axis=1))
    return np.concatenate(found)


def _fit_means(train: Seen) -> dict[str, NDArray[Any]]:
    """The mean of each label, in coordinates in which the states of a label have unit variance."""
    from sklearn.covariance import ledoit_wolf

    states = train.states.astype(np.float64)
    present = np.unique(train.labels)
    means = np.stack([states[train.labels == label].mean(axis=0) for label in present])
    centred = states - means[np.searchsorted(present, train.labels)]
    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    whitener = vectors / np.sqrt(np.maximum(values, max(values.max(), 1e-12) * 1e-9))
    return {
        "whitener": whitener.astype(np.float32),
        "means": (means @ whitener).astype(np.float32),
    }


def _score_mahalanobis(logits: Any, states: Any, arrays: Mapping[str, NDArray[Any]]) -> Floats:
    """The square of the distance to the nearest label's mean."""
    means = arrays["means"].astype(np.float64)
    found = [np.zeros(0)]
    for some in _in_chunks(states):
        white = some.astype(np.float64) @ arrays["whitener"].astype(np.float64)
        square = (white**2).sum(axis=1)[:, None] - 2 * white @ means.T + (means**2).sum(axis=1)
        found.append(square.min(axis=1))
    return np.concatenate(found)


# The simplest first: of ways that are as good, it is taken.
KINDS = {
    "max_probability": Kind(_fit_nothing, _score_probability, reads_states=False),
    "energy": Kind(_fit_nothing, _score_energy, reads_states=False, reads_sizes=True),
    "neighbours": Kind(_keep_states, _score_neighbours),
    "mahalanobis": Kind(_fit_means, _score_mahalanobis),
}
