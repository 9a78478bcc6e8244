"""Detectors: each finds what is far away, the threshold keeps its promise, AUROC is right."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation import out_of_scope
from finetune.evaluation.out_of_scope import KINDS, Seen
from finetune.evaluation.probabilities import softmax
from finetune.runtime.errors import InputError


def clusters(rows, labels=4, hidden=6, seed=0, scale=4.0):
    """Documents around a point for each label; their logits are by the distance to these."""
    rng = np.random.default_rng(seed)
    middles = scale * np.eye(labels + 1, hidden)  # the last is no label's
    own = rng.integers(0, labels, rows)
    states = (middles[own] + rng.normal(size=(rows, hidden))).astype(np.float32)
    return Seen((states @ middles[:labels].T).astype(np.float32), states, own)


def strangers(rows, labels=4, hidden=6, seed=9):
    rng = np.random.default_rng(seed)
    states = (4.0 * np.eye(labels + 1, hidden)[labels] + rng.normal(size=(rows, hidden))).astype(
        np.float32
    )
    logits = (states @ (4.0 * np.eye(labels + 1, hidden)[:labels]).T).astype(np.float32)
    return Seen(logits, states, np.zeros(rows, np.int64))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_finds_a_label_that_nobody_named(kind):
    train, validation, test = (clusters(rows, seed=rows) for rows in (300, 100, 400))
    detector = out_of_scope.fit_detector(kind, train, validation, 0.1)
    inside = detector.score(test.logits, test.states)
    outside = detector.score(strangers(200).logits, strangers(200).states)
    assert out_of_scope.measure_auroc(outside, inside) > 0.9
    assert (inside > detector.threshold).mean() < 0.2
    assert (outside > detector.threshold).mean() > 0.6
    # In any number at once.
    np.testing.assert_allclose(
        np.concatenate([detector.score(test.logits[i : i + 7], test.states[i : i + 7])
                        for i in range(0, 400, 7)]), inside, rtol=1e-5, atol=1e-6)  # fmt: skip


def test_mahalanobis_is_the_distance_by_the_covariance_inside_labels():
    train = clusters(2000)
    arrays = KINDS["mahalanobis"].fit(train)
    some = train.take(slice(0, 5))
    found = KINDS["mahalanobis"].score(some.logits, some.states, arrays)
    means = np.stack([train.states[train.labels == label].mean(axis=0) for label in range(4)])
    inverse = np.linalg.inv(np.cov((train.states - means[train.labels]).T))
    apart = some.states[:, None] - means[None]
    expected = np.einsum("rci,ij,rcj->rc", apart, inverse, apart).min(axis=1)
    np.testing.assert_allclose(found, expected, rtol=0.15)


def test_labels_are_held_out_once_each_and_the_best_way_is_taken():
    train, validation = clusters(300), clusters(150, seed=1)
    choice = out_of_scope.choose_detector(train, validation)
    assert choice.groups == 4
    assert choice.kind == max(KINDS, key=lambda kind: choice.aurocs[kind].mean())
    assert choice.aurocs[choice.kind].mean() > 0.9
    low, high = choice.interval(choice.kind)
    assert 0 <= low < choice.aurocs[choice.kind].mean() < high <= 1
    assert choice.curve[0] <= choice.curve[10] <= choice.curve[-1] == 1
    again = out_of_scope.choose_detector(train, validation)
    assert again.kind == choice.kind
    assert (again.curve == choice.curve).all()


def test_ordered_labels_have_no_energy():
    """Their logits are log-probabilities: with a label left out they tell of it, whole they are
    0."""
    train, validation = (
        replace(seen, logits=np.log(softmax(seen.logits)).astype(np.float32))
        for seen in (clusters(300), clusters(150, seed=1))
    )
    assert np.abs(KINDS["energy"].score(validation.logits, validation.states, {})).max() < 1e-4
    choice = out_of_scope.choose_detector(train, validation, ordered=True)
    assert choice.aurocs.keys() == KINDS.keys() - {"energy"}
    assert choice.kind != "energy"


def test_labels_that_validation_lacks_are_not_held_out():
    train, validation = clusters(300, labels=5), clusters(150, labels=5, seed=1)
    choice = out_of_scope.choose_detector(train, validation.take(validation.labels < 2))
    assert choice.groups == 2
    assert np.isfinite(choice.curve).all()
    with pytest.raises(InputError, match="two labels or more, found those of one"):
        out_of_scope.choose_detector(train, validation.take(validation.labels < 1))


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(out_of_scope, "MOST_STATES", 50)
    detector = out_of_scope.fit_detector("neighbours", clusters(300), clusters(40, seed=1), 0.1)
    assert detector.arrays["states"].shape == (50, 6)
    assert detector.arrays["states"].dtype == np.float16


@given(st.integers(0, 200), st.floats(0.01, 0.4))
def test_a_threshold_flags_at_most_its_share_of_what_it_is_chosen_on(more, rate):
    rows = out_of_scope.least_rows(rate) + more
    rank = out_of_scope.calibration_rank(rows, rate)
    assert 1 <= rank <= rows
    # A new document is above it with a chance of at most `rate`: it is as likely in each of the
    # rows + 1 places.
    assert (rows + 1 - rank) / (rows + 1) <= rate + 1e-9
    if rows > 1:
        assert out_of_scope.calibration_rank(out_of_scope.least_rows(rate) - 1, rate) > (
            out_of_scope.least_rows(rate) - 1
        )


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
)
def test_auroc_is_the_chance_of_a_higher_score(new, known):
    new, known = np.array(new, float), np.array(known, float)
    pairs = np.sign(new[:, None] - known[None])
    value = out_of_scope.measure_auroc(new, known)
    assert value == pytest.approx((pairs.mean() + 1) / 2)
    low, high = out_of_scope.auroc_interval(new, known)
    assert 0 <= low <= value <= high <= 1
    curve = out_of_scope.find_curve(new, known)
    assert (np.diff(curve) >= 0).all()


def test_the_interval_holds_the_true_value_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = out_of_scope.auroc_interval(rng.normal(1.5, 1, 40), rng.normal(0, 1, 60))
        held += low <= 0.8556 <= high  # Phi(1.5 / sqrt 2)
    assert 0.91 <= held / 300 <= 0.99
