"""Temperatures, folded into real models; calibration error, coverage and thresholds by hand."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoTokenizer

from finetune.config import schema
from finetune.evaluation import calibration, intervals, probabilities
from finetune.modeling import build, modeling_document_classifier, saved_model
from finetune.runtime import atomic_files
from finetune.training import finalize
from tests.support.runs import results, run_here
from tests.support.tiny import tiny_encoder

CHOSEN = calibration.Temperature(1.7, "for the test")

ROWS = 4000


def drawn(temperature, rows=ROWS, classes=4, seed=0):
    """Logits whose softmax is honest once divided by the temperature, and labels drawn from it."""
    draw = np.random.default_rng(seed)
    honest = draw.normal(size=(rows, classes)) * 2
    chances = probabilities.softmax(honest)
    labels = np.array([draw.choice(classes, p=row) for row in chances])
    return (honest * temperature).astype(np.float32), labels


@pytest.mark.parametrize("true", [0.5, 1.7, 4.0])
def test_the_temperature_is_found_and_mends_the_error(true):
    logits, labels = drawn(true)
    found = calibration.fit_temperature(logits, labels)
    assert found.value == pytest.approx(true, rel=0.06)
    before, after = (
        calibration.summarize_calibration(logits / t, labels) for t in (1, found.value)
    )
    assert after["ece"] <= before["ece"] / 2
    assert after["log_loss"] < before["log_loss"]


def test_what_honest_probabilities_would_show():
    """The mean error of many samples whose probabilities are honest, from one of them."""
    for rows in (100, 2000):
        samples = [drawn(1.0, rows=rows, seed=seed) for seed in range(20)]
        found = [calibration.summarize_calibration(*sample) for sample in samples]
        mean = np.mean([one["ece"] for one in found])
        assert np.mean([one["ece_by_chance"] for one in found]) == pytest.approx(mean, rel=0.15)
    chances = probabilities.softmax(drawn(1.0, rows=20_000)[0].astype(float))
    by_draws = calibration.expected_ece_of_calibrated(chances, np.zeros(len(chances), dtype=int))
    thrice = np.concatenate([chances] * 3)  # more than are drawn for
    by_formula = calibration.expected_ece_of_calibrated(thrice, np.zeros(len(thrice), dtype=int))
    assert by_formula * np.sqrt(3) == pytest.approx(by_draws, rel=0.1)
    off = calibration.summarize_calibration(*drawn(3.0))
    assert off["ece"] > 3 * off["ece_by_chance"]
    several = np.array([[0.25, 0.75]] * 400)
    by_chance = np.sqrt(2 / np.pi * 0.25 * 0.75 / 400)  # of one bin's mean, nearly normal
    honest = calibration.expected_ece_of_calibrated(several, np.zeros((400, 2)))
    assert honest == pytest.approx(by_chance, rel=0.1)


def test_an_honest_model_or_a_handful_of_rows_is_left_alone():
    for seed in range(10):
        logits, labels = drawn(1.0, rows=300, seed=seed)
        found = calibration.fit_temperature(logits, labels)
        if found.value != 1:  # once in 20 times
            assert 0.7 < found.value < 1.4
    assert calibration.fit_temperature(*drawn(1.3, rows=12)).value == 1
    logits, labels = np.eye(3, dtype=np.float32), np.arange(3)
    assert calibration.fit_temperature(logits, labels).value == 1


@pytest.mark.parametrize("multi_label", [False, True])
@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 150), classes=st.integers(2, 9), scale=st.floats(1e-3, 3))
def test_rows_that_are_all_right_or_all_wrong_never_drive_it_to_a_bound(
    multi_label, rows, classes, scale
):
    """The likelihood of such rows has no maximum; the prior gives it one."""
    labels = np.arange(rows) % classes
    targets = np.eye(classes)[labels]
    right = ((2 * targets - 1) * scale).astype(np.float32)
    limit = np.exp(calibration.SEARCHED) / 1.1
    for logits in (right, -right):
        chosen = calibration.fit_temperature(logits, targets if multi_label else labels)
        assert 1 / limit < chosen.value < limit


@pytest.mark.parametrize(("distance", "classes"), [(2.5, 2), (5.0, 7), (4.5, 30)])
@pytest.mark.parametrize("rows", [12, 30, 150])
def test_few_rows_cost_other_rows_no_more_than_chance(rows, classes, distance):
    """Honest logits, timid and confident ones: of 20 draws of held-out rows, the worst as well."""
    for factor in (0.1, 0.3, 1.0, 3.0):
        logits, truth = noisy(2000, classes, distance, factor, seed=0)
        as_trained = probabilities.row_losses(logits, truth)
        chance = 3 * as_trained.std() / np.sqrt(rows)
        changes = []
        for seed in range(1, 21):
            found = calibration.fit_temperature(*noisy(rows, classes, distance, factor, seed))
            after = probabilities.row_losses(logits / found.value, truth)
            changes.append(float((after - as_trained).mean()))
        assert np.mean(changes) < 0.01
        assert max(changes) < chance
        if factor == 0.1 and rows >= 30:  # so timid that a few rows show it
            assert np.mean(changes) < -0.4 * as_trained.mean()


def noisy(rows, classes, distance, factor, seed):
    """Logits of classes with normal noise around them, `factor` times the honest ones."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, rows)
    seen = np.eye(classes)[labels] * distance + draw.normal(size=(rows, classes))
    return (seen * distance * factor).astype(np.float32), labels


def test_a_power_of_two_where_rounding_could_change_an_answer():
    assert calibration.fit_temperature(*drawn(1.8), power_of_two=True).value == 2
    assert calibration.fit_temperature(*drawn(1.2), power_of_two=True).value == 1


def test_calibration_error_by_hand():
    chances = np.array([[0.9, 0.1], [0.92, 0.08], [0.45, 0.55]])
    labels = np.array([0, 1, 1])
    bins = calibration.reliability_bins(chances, labels)
    assert [(b["rows"], b["accuracy"]) for b in bins] == [(1, 1.0), (2, 0.5)]
    assert bins[1]["confidence"] == pytest.approx(0.91)
    assert calibration.expected_calibration_error(chances, labels) == pytest.approx(
        0.45 / 3 + 2 / 3 * 0.41
    )
    sure = calibration.reliability_bins(np.array([[1.0, 0.0]]), np.array([0]))
    assert (sure[0]["high"], sure[0]["rows"]) == (1.0, 1)


def test_coverage_and_threshold_by_hand():
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    labels = np.array([0, 0, 1, 0, 1])
    curve = calibration.risk_coverage(chances, labels)
    assert [point["rows"] for point in curve] == [1, 3, 4, 5]  # the two of 0.8 go together
    assert [point["accuracy"] for point in curve] == [1, pytest.approx(2 / 3), 0.75, 0.6]
    chosen = calibration.choose_abstention_threshold(chances, labels, 0.75)
    assert (chosen.rows, chosen.correct, chosen.guaranteed) == (4, 3, False)
    assert chosen.value == pytest.approx(0.65)
    high = calibration.choose_abstention_threshold(chances, labels, 0.9)
    assert (high.rows, high.value) == (1, pytest.approx(0.85))
    wrong = np.array([1, 0, 1, 0, 1])
    assert calibration.choose_abstention_threshold(chances, wrong, 0.9) is None
    assert calibration.score_answered(chances, labels, 0.65) == {
        "rows": 4, "coverage": 0.8, "accuracy": 0.75,
        "accuracy_interval": intervals.wilson_interval(0.75, 4),
    }  # fmt: skip
    assert calibration.score_answered(chances, labels, 0.99)["accuracy"] is None


def ranked(rows, right):
    """Two classes, from sure to unsure; the rows that are right."""
    confidence = np.linspace(0.999, 0.5, rows)
    chances = np.stack([confidence, 1 - confidence], axis=1)
    return chances, np.where(right, 0, 1)


def test_a_threshold_has_a_margin():
    """Of 400 rows the first 300 are right: 300 of 300 is 98 % at least, 300 of 310 not 95 %."""
    chances, labels = ranked(400, np.arange(400) < 300)
    chosen = calibration.choose_abstention_threshold(chances, labels, 0.95)
    assert chosen.guaranteed
    assert 297 <= chosen.rows <= 306
    assert chosen.correct / chosen.rows > 0.97
    everything = calibration.choose_abstention_threshold(*ranked(400, np.full(400, True)), 0.95)
    assert everything == calibration.AbstentionThreshold(0.0, 400, 400, True)


def test_of_a_hundred_validation_splits_at_most_five_miss_their_target():
    draw, target = np.random.default_rng(0), 0.9
    missed, covered = 0, []
    for _ in range(100):
        confidence = np.sort(draw.uniform(0.5, 1, 3000))[::-1]
        right = draw.random(3000) < confidence  # calibrated, so the truth is known
        chances = np.stack([confidence, 1 - confidence], axis=1)
        chosen = calibration.choose_abstention_threshold(chances, np.where(right, 0, 1), target)
        assert chosen is not None
        if chosen.guaranteed:
            missed += (1 + chosen.value) / 2 < target  # the mean above the threshold
            covered.append(chosen.rows / 3000)
    assert missed <= 5
    assert len(covered) > 90
    assert np.mean(covered) > 0.2  # 0.4 would reach it without a margin


@pytest.mark.parametrize(
    ("head", "architecture"),
    [("linear", "bert"), ("native", "bert"), ("native", "roberta"), ("native", "distilbert")],
)
def test_folding_divides_the_logits_of_the_saved_model(tmp_path, head, architecture):
    """In one file alone, through a copy whose links keep the model as it was trained."""
    source = tiny_encoder(tmp_path / "encoder", architecture)
    choices = schema.Model(source=str(source), head=head, head_init="normal", freeze="none")
    model = build.build_classifier(str(source), choices, ["a", "b", "c"], "eager", seed=0)
    tokenizer = AutoTokenizer.from_pretrained(source)
    run = tmp_path / "run"
    run.mkdir()
    saved_model.replace_model_folder(model, tokenizer, run / "model", model.state_dict())
    atomic_files.link_folder(run / "model", run / "kept")
    inputs = dict(tokenizer("the team won", return_tensors="pt"))
    with torch.no_grad():
        before = model(**inputs).logits
    assert finalize.fold_temperature(run / "model", model, CHOSEN, lambda device: inputs, False)
    folded, _ = saved_model.load_classifier(run / "model")
    with torch.no_grad():
        torch.testing.assert_close(folded(**inputs).logits, before / 1.7)
    kept, now = (
        load_file(run / "kept/model.safetensors"),
        load_file(run / "model/model.safetensors"),
    )
    changed = {name for name in kept if not torch.equal(kept[name], now[name])}
    last = {"linear": "classifier", "roberta": "classifier.out_proj"}
    name = last["linear"] if head == "linear" else last.get(architecture, "classifier")
    assert changed <= {f"{name}.weight", f"{name}.bias"}
    assert f"{name}.weight" in changed
    assert {p.name for p in run.iterdir()} == {"model", "kept"}


def test_folding_divides_what_the_logits_of_ordered_labels_are_made_of(tmp_path):
    source = tiny_encoder(tmp_path / "encoder")
    choices = schema.Model(source=str(source), head_init="normal", freeze="none")
    labels = ["a", "b", "c", "d"]
    model = build.build_classifier(str(source), choices, labels, "eager", seed=0, ordered=True)
    tokenizer = AutoTokenizer.from_pretrained(source)
    saved_model.replace_model_folder(model, tokenizer, tmp_path / "model", model.state_dict())
    inputs = dict(tokenizer("the team won", return_tensors="pt"))
    with torch.no_grad():
        before = model(**inputs).logits.numpy()
    chosen = calibration.Temperature(1.7, "for the test", ordered=True)
    assert finalize.fold_temperature(tmp_path / "model", model, chosen, lambda _: inputs, False)
    folded, _ = saved_model.load_classifier(tmp_path / "model")
    with torch.no_grad():
        after = folded(**inputs).logits.numpy()
    np.testing.assert_allclose(after, chosen.divide(before), atol=1e-5)
    assert probabilities.softmax(after).sum() == pytest.approx(1)
    assert np.exp(after).sum() == pytest.approx(1, abs=1e-5)


def test_windows_of_ordered_labels_have_no_temperature():
    """Their log-probabilities are pooled: dividing each window's head does not divide these."""
    recipe = schema.Recipe.model_validate(
        {"data": {"source": "x", "task": "ordered", "truncation": "windows"}}
    )
    session = SimpleNamespace(
        recipe=recipe,
        data=SimpleNamespace(plan=SimpleNamespace(precision="fp32")),
        env=SimpleNamespace(on_main=lambda call: call()),
    )
    made = np.log(probabilities.softmax(9 * np.random.default_rng(0).normal(size=(300, 3))))
    labels = np.random.default_rng(1).integers(0, 3, 300)
    assert calibration.fit_temperature(made, labels, ordered=True).value > 1
    found = finalize._apply_temperature(session, made, labels, "validation rows")
    assert (found.value, found.ordered) == (1.0, True)


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=6), st.floats(0.2, 5))
def test_ordered_logits_are_divided_by_way_of_their_outputs(outputs, divisor):
    made = modeling_document_classifier.ordered_log_probabilities(
        torch.tensor([outputs], dtype=torch.float64)
    )
    again = modeling_document_classifier.ordered_log_probabilities(
        torch.tensor([outputs], dtype=torch.float64) / divisor
    ).numpy()
    divided = probabilities.divide_logits(made.numpy(), divisor, ordered=True)
    np.testing.assert_allclose(divided, again, rtol=1e-6, atol=1e-6)
    assert np.exp(made.numpy()).sum() == pytest.approx(1)


def test_a_class_that_does_more_with_its_head_is_left_as_it_was(tmp_path, monkeypatch):
    source = tiny_encoder(tmp_path / "encoder")
    choices = schema.Model(source=str(source), head_init="normal", freeze="none")
    model = build.build_classifier(str(source), choices, ["a", "b"], "eager", seed=0)
    tokenizer = AutoTokenizer.from_pretrained(source)
    saved_model.replace_model_folder(model, tokenizer, tmp_path / "model", model.state_dict())
    forward = build.DocumentClassifier.forward

    def squashed(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        output.logits = output.logits.tanh() + 1
        return output

    monkeypatch.setattr(build.DocumentClassifier, "forward", squashed)
    inputs = dict(tokenizer("the team won", return_tensors="pt"))
    before = (tmp_path / "model/model.safetensors").read_bytes()
    assert not finalize.fold_temperature(
        tmp_path / "model", model, CHOSEN, lambda device: inputs, False
    )
    assert (tmp_path / "model/model.safetensors").read_bytes() == before


@pytest.mark.parametrize("head", ["linear", "native"])
def test_a_run_folds_once_however_often_it_is_taken_up(here, monkeypatch, head):
    """Forced to a temperature of 2 and a third; answers stay, resuming finds the model unfolded."""
    chosen = calibration.Temperature(2.3333, "for the test")
    monkeypatch.setattr(calibration, "fit_temperature", lambda *_: chosen)
    run_here("run.dir=plain", f"model.head={head}")
    found = results(here / "plain")
    assert found["calibration"]["temperature"] == 2.3333
    [point] = [p for p in (here / "plain/checkpoints").iterdir() if p.name == "step-00000036"]
    trained, folded = (
        load_file(folder / "model.safetensors") for folder in (point / "best", here / "plain/model")
    )
    torch.testing.assert_close(folded["classifier.weight"], trained["classifier.weight"] / 2.3333)
    shutil.copytree(here / "plain", here / "again")
    (here / "again/results.json").unlink()
    run_here("run.resume=again", f"model.head={head}")
    again = load_file(here / "again/model/model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in folded.items())
    assert results(here / "again")["hashes"] == found["hashes"]
    for key in ("validation", "test", "calibration", "mistakes"):
        assert results(here / "again")[key] == found[key]
    monkeypatch.setattr(
        calibration, "fit_temperature", lambda *_: calibration.Temperature(1.0, "left")
    )
    run_here("run.dir=left", f"model.head={head}")
    left = results(here / "left")
    for split in ("validation", "test"):
        assert left[split]["accuracy"] == found[split]["accuracy"]
        assert left[split]["loss"] == pytest.approx(
            found["calibration"][split]["before"]["log_loss"], rel=1e-6
        )
    assert left["confusion"] == found["confusion"]
    assert left["hashes"]["weights"] != found["hashes"]["weights"]
