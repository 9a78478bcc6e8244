"""What results say in words: each sentence for the number that it is about."""

from types import SimpleNamespace

import pytest

from finetune.evaluation.analysis_model import ClassScores
from finetune.reporting import baseline_comparison, narrative, number_formats
from finetune.reporting.number_formats import format_metric
from tests.unit.reporting.made import changed, made_results


def with_gaps(tfidf, majority, macro=(-0.1, 0.1)):
    """Results whose model differs so from the baselines: difference, low, high."""

    def change(values):
        for name, (difference, *interval) in (("tfidf", tfidf), ("majority", majority)):
            values["baselines"][name]["paired_difference"] = {
                "accuracy": {"difference": difference, "interval": interval},
                "f1_macro": {"difference": 0.0, "interval": macro},
            }

    return changed(made_results(), change)


@pytest.mark.parametrize(
    ("gap", "sentence", "judgement"),
    [
        ((0.03, 0.01, 0.05),
         "The model beats the TF-IDF baseline by 3.0 points of accuracy (95 % interval +1.0 to "
         "+5.0).",
         "The encoder earns its cost: the model beats the TF-IDF baseline by 1.0 to 5.0 points"),
        ((-0.03, -0.05, -0.01),
         "The model is worse than the TF-IDF baseline by 3.0 points of accuracy (95 % interval "
         "−5.0 to −1.0).",
         "The model is worse than the TF-IDF baseline by 1.0 to 5.0 points"),
        ((0.0, -0.01, 0.01),
         "The model does not clearly differ from the TF-IDF baseline: +0.0 points of accuracy "
         "(95 % interval −1.0 to +1.0).",
         "The model is not clearly better than the TF-IDF baseline: the difference is between "),
    ],
)  # fmt: skip
def test_the_comparison_to_the_baseline(gap, sentence, judgement):
    results = with_gaps(gap, (0.5, 0.4, 0.6))
    assert baseline_comparison.summarize_comparison(results) == sentence
    assert baseline_comparison.judge_encoder(results).startswith(judgement)


def test_the_better_baseline_is_the_one_to_beat():
    results = with_gaps((0.2, 0.1, 0.3), (-1.0, -0.1, 0.1))
    assert baseline_comparison.summarize_comparison(results).startswith(
        "The model does not clearly differ from the majority-class baseline: −100.0 points"
    )
    assert "not clearly better than the majority-class" in baseline_comparison.judge_encoder(
        results
    )
    # Better by macro-F1: accuracy says little of rare labels.
    results = with_gaps((0.2, 0.1, 0.3), (-1.0, -0.1, 0.1), macro=(0.1, 0.2))
    assert baseline_comparison.compare_to_baseline(results).baseline == baseline_comparison.TFIDF


def test_calibration():
    def without_gain(values):
        values["calibration"] |= {"temperature": 1.0, "why": "no significant gain"}
        values["calibration"]["test"]["after"] |= {"ece": 0.014, "ece_by_chance": 0.013}

    results = changed(made_results(), without_gain)
    assert narrative.summarize_calibration(results) == (
        "Test ECE 0.014 (about 0.013 expected by chance). Temperature scaling skipped: no "
        "significant gain."
    )
    assert "Temperature scaling was skipped: no significant gain." in narrative.explain_calibration(
        results
    )
    scaled = narrative.summarize_calibration(made_results())
    assert scaled.endswith("Temperature 1.50: fitted for a test.")
    results = made_results()
    assert "divided by 1.50" in narrative.explain_calibration(results)
    assert "changes no prediction" in narrative.explain_calibration(results)
    ordered = results.data.model_copy(update={"task": "ordered"})
    said = narrative.explain_calibration(results.model_copy(update={"data": ordered}))
    assert "The outputs of the head are divided by 1.50" in said
    assert "may change those that are nearly tied" in said


def test_abstention():
    def at(threshold, **here):
        def change(values):
            values["abstention"] |= {"threshold": threshold, "target": 0.97}
            values["abstention"]["test"] |= here

        return narrative.explain_abstention(changed(made_results(), change))

    assert at(None) == (
        "No threshold reaches an accuracy of 97.0\u00a0% on validation, so the model predicts a "
        "label for every document."
    )
    assert at(0.0).endswith("reach an accuracy of 97.0\u00a0%: no threshold is needed.")
    here = {"rows": 8, "coverage": 0.9, "accuracy": 1.0, "accuracy_interval": [0.7, 1.0]}
    assert at(0.5, **here) == (
        "To reach an accuracy of 97.0\u00a0%, the model should abstain below a probability of "
        "0.500, chosen on validation, whose 9 documents are too few to be confident that more "
        "reach it, too. On test, that covers 90.0\u00a0% of the documents with an accuracy of "
        "100.0\u00a0% (95 % interval 70.0\u00a0% to 100.0\u00a0%); the other 10.0\u00a0% would "
        "go to a person. This model does not abstain: score.target_accuracy has it do so."
    )

    def saved(values):
        values["abstention"] |= {"threshold": 0.5, "target": 0.97, "guaranteed": True}
        values["abstention"] |= {"saved": True}
        values["abstention"]["test"] |= here

    text = narrative.explain_abstention(changed(made_results(), saved))
    assert "the model predicts no label below a probability of 0.500" in text
    assert "on validation, with a confidence of 95 %. On test" in text
    assert "does not abstain" not in text
    # A detector of documents out of scope gives some no label.
    detector = SimpleNamespace(kind="energy")
    for change, said in (
        (lambda v: v["abstention"].update(threshold=0.5, target=0.97),
         " A low probability alone does not make this model abstain: score.target_accuracy has it "
         "do so. It gives no label to documents that it finds out of scope."),
        (lambda v: v["abstention"].update(threshold=None, target=0.97),
         "so the model predicts a label however low its probability is."),
    ):  # fmt: skip
        found = changed(made_results(), change).model_copy(update={"out_of_scope": detector})
        text = narrative.explain_abstention(found)
        assert text.endswith(said)
        assert "does not abstain" not in text


def test_the_verdict_follows_the_metric_that_picks_the_model():
    def change(values):
        values["monitor"] = "f1_macro"
        for one in values["baselines"].values():
            one["paired_difference"] = {
                "accuracy": {"difference": 0.03, "interval": [0.01, 0.05]},
                "f1_macro": {"difference": -0.07, "interval": [-0.1, -0.04]},
            }

    results = changed(made_results(), change)
    assert baseline_comparison.summarize_comparison(results) == (
        "The model is worse than the TF-IDF baseline by 7.0 points of macro-F1 (95 % interval "
        "−10.0 to −4.0)."
    )
    of_loss = changed(results, lambda values: values.update(monitor="loss"))
    assert "beats the TF-IDF baseline by 3.0 points of accuracy" in (
        baseline_comparison.summarize_comparison(of_loss)
    )
    assert [baseline_comparison.name_metric(key) for key in (
        "f1_micro", "recall_weighted", "matthews_correlation", "accuracy",
    )] == ["micro-F1", "weighted-recall", "Matthews correlation", "accuracy"]  # fmt: skip


def test_labels_that_are_never_predicted_or_absent_are_named():
    def change(values):
        first, second, _ = values["classes"]
        first |= {"predicted": 0, "precision": None, "f1": 0.0}
        second |= {"support": 0, "recall": None, "f1": None}

    results = changed(made_results(), change)
    never = "1 of 3 labels is never predicted on test: 'label 0'."
    assert narrative.explain_never_predicted(results) == never
    assert narrative.explain_macro(results) == (
        "1 of 3 labels have no document in test. Macro averages are over the 3 labels that some "
        "document has or is given; the 1 that are predicted alone count as 0."
    )
    assert never in [*narrative.summarize(results)]
    assert never in [*narrative.introduce(results)]
    assert narrative.explain_macro(made_results()) == ""
    assert narrative.explain_never_predicted(made_results()) == ""


@pytest.mark.parametrize("monitor", ["f1_macro", "accuracy", "loss", None])
def test_the_headline_names_the_metric_that_picks_the_model(monitor):
    results = changed(made_results(), lambda values: values.update(monitor=monitor))
    main = "f1_macro" if monitor == "f1_macro" else "accuracy"
    assert narrative.main_metric(results) == main
    value = format_metric(main, results.test.metric(main))
    assert narrative.headline(results).startswith(f"{main.replace('acc', 'Acc')} {value} on ")


@pytest.mark.parametrize(
    ("metric", "value", "interval", "said"),
    [
        ("f1_macro", 0.40, (0.39, 0.60), "Most of it lies above the score, because labels with "
         "few documents score too low on average, which the interval corrects."),
        ("f1_macro", 0.40, (0.40, 0.60), "Most of it lies above the score"),
        ("recall_macro", 0.60, (0.40, 0.61), "Most of it lies below the score"),
        ("f1_macro", 0.50, (0.40, 0.60), ""),
        ("accuracy", 0.40, (0.40, 0.60), ""),
        ("f1_macro", None, (0.40, 0.60), ""),
        ("f1_macro", 0.40, None, ""),
    ],
)  # fmt: skip
def test_a_macro_average_near_an_end_of_its_interval_is_explained(metric, value, interval, said):
    found = narrative.explain_off_centre(metric, value, interval)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_the_headline_and_the_weakest_label():
    results = made_results()
    accuracy = number_formats.percent(results.test.metric("accuracy"))
    assert narrative.headline(results) == f"Accuracy {accuracy} on 9 unseen documents"
    assert "Always predicting ‘label 0’ scores" in " ".join(narrative.introduce(results))
    rare = results.classes[0].model_copy(update={"support": 0, "f1": 0.0})
    worst = narrative.weakest_label([rare, *results.classes[1:]])
    assert isinstance(worst, ClassScores)
    assert worst.support > 0
    assert narrative.weakest_label([rare]) is None  # as where no row of the split has a label


def test_numbers_as_a_person_reads_them():
    assert [number_formats.format_seconds(s) for s in (4.21, 156.2, 960, 11160)] == [
        "4.2 s", "156 s", "16 min", "3.1 h",
    ]  # fmt: skip
    assert number_formats.signed(-0.52) == "−0.5"
    assert number_formats.format_bytes(2.5e9) == "2.5 GB"
    assert number_formats.format_score(None) == number_formats.format_metric("f1", None) == "–"
    assert number_formats.format_interval((0.5, 0.75), 2) == "0.50 to 0.75"


def test_too_low_probabilities_are_named_as_too_high_ones_are():
    quality = made_results().calibration.on("test").after
    [one] = quality.bins[:1]

    def at(confidence, accuracy, ece=0.3):
        only = one.model_copy(update={"confidence": confidence, "accuracy": accuracy, "rows": 50})
        return narrative.describe_confidence(
            quality.model_copy(update={"bins": [only], "ece": ece, "ece_by_chance": 0.02})
        )

    assert "overconfident: probabilities are too high, 90.0\u00a0%" in at(0.9, 0.6)
    assert "underconfident: probabilities are too low, 60.0\u00a0%" in at(0.6, 0.9)
    assert at(0.61, 0.6, ece=0.03) == ""
