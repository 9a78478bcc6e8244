"""Results → what they say, in sentences. `next_steps.py` says what to try next."""

from collections.abc import Iterator, Sequence

from finetune.config.label_tasks import POINT
from finetune.evaluation.analysis_model import CalibrationQuality, ClassScores
from finetune.reporting import number_text
from finetune.reporting.baseline_comparison import judge_encoder, summarize_comparison
from finetune.reporting.evaluation_model import WHERE, Evaluation
from finetune.reporting.number_formats import (
    count_documents,
    format_metric,
    name_metric,
    percent,
)
from finetune.reporting.results_model import Results

NEAR_AN_END = 0.15  # of an interval: a score that is nearer to its end is explained


def main_metric(results: Results | Evaluation) -> str:
    """The metric that a report names first: the one that picks the model, if it was measured.

    Where that is a loss, or not known, it is accuracy, else the first; and not accuracy where rows
    may have several labels, as few rows have every one of them right.
    """
    names = results.metric_names
    if results.monitor in names and not results.monitor.endswith("loss"):
        return results.monitor
    if results.data.multi_label:
        return next((name for name in names if name != "accuracy"), "accuracy")
    return "accuracy" if "accuracy" in names or not names else names[0]


def headline(results: Results) -> str:
    """The score of the report's title."""
    main, scores = main_metric(results), results.scores
    documents = "unseen" if results.analysed == "test" else "validation"
    value = scores.metric(main)
    if results.tasks:
        name = name_metric(main)
        mean = "" if POINT in main else f"Mean of {len(results.tasks)} tasks: "
        return f"{mean}{name} {format_metric(main, value)} on {scores.rows:,} {documents} documents"
    if main == "accuracy":
        return f"Accuracy {format_metric(main, value)} on {scores.rows:,} {documents} documents"
    name = name_metric(main) if results.numbers is not None else main
    return f"{name} {format_metric(main, value)} on {scores.rows:,} {documents} documents"


def introduce(results: Results) -> Iterator[str]:
    """How certain the main metric is, and how it compares to the baselines."""
    main = main_metric(results)
    regression, always = "logistic", "‘{}’"
    if results.numbers is not None:
        regression, always = "ridge", "{}"
    interval = results.scores.intervals[main]
    if interval is not None:
        low, high = (format_metric(main, end) for end in interval)
        yield (
            f"The 95 % interval is {low} to {high}: on many more documents of this kind, the score "
            "would most likely lie in it."
        )
        if off_centre := explain_off_centre(main, results.scores.metric(main), interval):
            yield off_centre
    baselines = results.baselines
    if baselines is not None and baselines.tfidf.has(main):
        majority = format_metric(main, baselines.majority.metric(main))
        tfidf = format_metric(main, baselines.tfidf.metric(main))
        yield (
            f"Always predicting {always.format(baselines.majority.label)} scores {majority}. "
            f"TF-IDF with {regression} regression scores {tfidf}. {judge_encoder(results)}"
        )
    if never := explain_never_predicted(results):
        yield never


def explain_off_centre(
    metric: str, value: float | None, interval: tuple[float, float] | None
) -> str:
    """Why a macro average lies near an end of its interval; empty where it does not."""
    if value is None or interval is None or "_macro" not in metric or interval[0] == interval[1]:
        return ""
    place = (value - interval[0]) / (interval[1] - interval[0])
    if NEAR_AN_END < place < 1 - NEAR_AN_END:
        return ""
    if place <= NEAR_AN_END:
        return (
            "Most of it lies above the score, because labels with few documents score too low on "
            "average, which the interval corrects."
        )
    return (
        "Most of it lies below the score, because the few documents of some labels did better than "
        "labels with few documents do on average, which the interval takes into account."
    )


def explain_never_predicted(results: Results, most: int = 5) -> str:
    """The labels that documents have and that are never predicted; empty where there are none."""
    never = [one for one in results.classes if one.support and not one.predicted]
    if not never:
        return ""
    names = ", ".join(f"'{one.label}'" for one in never[:most])
    more = f" and {len(never) - most:,} more" if len(never) > most else ""
    labels = f"{len(never):,} of {len(results.classes):,} labels"
    have = "is" if len(never) == 1 else "are"
    return f"{labels} {have} never predicted on {results.analysed}: {names}{more}."


def explain_macro(results: Results) -> str:
    """Which labels macro averages are over, where that is not all of them; else empty."""
    occur = sum(one.support + one.predicted > 0 for one in results.classes)
    absent = [one for one in results.classes if not one.support]
    if not absent or not any(name.endswith("_macro") for name in results.metric_names):
        return ""
    wrongly = sum(one.predicted > 0 for one in absent)
    text = (
        f"{len(absent):,} of {len(results.classes):,} labels have no document in "
        f"{results.analysed}. Macro averages are over the {occur:,} labels that some document has "
        "or is given"
    )
    return (
        f"{text}; the {wrongly:,} that are predicted alone count as 0." if wrongly else f"{text}."
    )


def summarize(results: Results) -> Iterator[str]:
    """A few sentences for the terminal: the baseline, the weakest label, calibration."""
    if results.baselines is not None:
        yield summarize_comparison(results)
    if results.numbers is not None:
        yield from number_text.explain_numbers(results.numbers, results)
        return
    yield from filter(None, (explain_never_predicted(results), explain_macro(results)))
    main = main_metric(results)
    interval = results.scores.intervals[main]
    if off_centre := explain_off_centre(main, results.scores.metric(main), interval):
        yield f"The 95 % interval of {main}: {off_centre[0].lower()}{off_centre[1:]}"
    worst = weakest_label(results.classes)
    if len(results.classes) > 2 and worst is not None and worst.f1 is not None and worst.f1 < 1:
        yield f"Weakest label: '{worst.label}', F1 {worst.f1:.3f}."
        if results.confused_pairs and not results.data.multi_label:
            pair = results.confused_pairs[0]
            yield (
                f"Most frequent confusion: '{pair.label}' predicted as '{pair.predicted}' "
                f"({count_documents(pair.rows)})."
            )
    yield summarize_calibration(results)


def weakest_label(classes: Sequence[ClassScores]) -> ClassScores | None:
    """The label of the lowest F1, among those that the analysed split has; None: it has none."""
    scored = [one for one in classes if one.support and one.f1 is not None]
    return min(scored, key=lambda one: one.f1 or 0.0, default=None)


def summarize_calibration(results: Results) -> str:
    """The calibration error and what temperature scaling did, in short."""
    calibration = results.calibration
    split = "test" if calibration.test is not None else "validation"
    before, after = calibration.on(split).before, calibration.on(split).after
    chance = f"about {after.ece_by_chance:.3f} expected by chance"
    ece = f"{split.capitalize()} ECE {after.ece:.3f} ({chance})."
    if calibration.temperature == 1:
        return f"{ece} Temperature scaling skipped: {calibration.why}."
    return (
        f"{ece} Before temperature scaling it was {before.ece:.3f}. Temperature "
        f"{calibration.temperature:.2f}: {calibration.why}."
    )


def explain_calibration(results: Results) -> str:
    """The calibration error and what temperature scaling did, for the report."""
    calibration, split = results.calibration, results.analysed
    before, after = calibration.on(split).before, calibration.on(split).after
    ece = (
        f"On {split}, the expected calibration error (ECE) is {after.ece:.3f}; perfectly "
        f"calibrated probabilities would show about {after.ece_by_chance:.3f} on so many documents."
        f"{describe_confidence(after)}"
    )
    if calibration.temperature == 1:
        return f"{ece} Temperature scaling was skipped: {calibration.why}."
    change = "lowers" if calibration.temperature > 1 else "raises"
    divided, effect = "The logits", "changes no prediction"
    if results.data.task == "ordered":  # of the steps between labels
        divided, effect = "The outputs of the head", "may change those that are nearly tied"
    return (
        f"{ece} Before temperature scaling it was {before.ece:.3f}. {divided} are divided by "
        f"{calibration.temperature:.2f} ({calibration.why}), which {change} the probabilities of "
        f"the predictions and {effect}."
    )


def describe_confidence(quality: CalibrationQuality) -> str:
    """Whether probabilities are too high or too low on the whole; empty where they are neither."""
    rows = sum(one.rows for one in quality.bins)
    confidence = sum(one.rows * one.confidence for one in quality.bins) / rows
    accuracy = sum(one.rows * one.accuracy for one in quality.bins) / rows
    if quality.ece < 2 * quality.ece_by_chance or abs(confidence - accuracy) < quality.ece / 2:
        return ""
    kind, way = ("overconfident", "high") if confidence > accuracy else ("underconfident", "low")
    return (
        f" It is {kind}: probabilities are too {way}, {percent(confidence)} on average where "
        f"{percent(accuracy)} are right."
    )


def explain_abstention(results: Results) -> str:
    """Which accuracy a threshold reaches at which coverage, and where it was chosen."""
    abstention, split = results.abstention, results.analysed
    if not results.is_tuned:
        no_threshold = (
            "The threshold for abstaining is chosen on validation, and there was no validation "
            "split."
        )
        if results.thresholds:
            shared = next(iter(results.thresholds.values()))
            no_threshold += (
                f" A label is predicted at a probability of {shared:g} or more, the threshold that "
                "scored best on train."
            )
        return no_threshold
    if abstention is None:
        return (
            "Each label has its own threshold, chosen on validation. A label is predicted where "
            "its probability reaches that threshold, so there is no single prediction to abstain "
            "from."
        )
    target = f"an accuracy of {percent(abstention.target or 0.0)}"
    if abstention.threshold is None:
        none = f"No threshold reaches {target} on validation"
        if results.out_of_scope is not None:
            return f"{none}, so the model predicts a label however low its probability is."
        return f"{none}, so the model predicts a label for every document."
    if abstention.threshold == 0:
        return f"All predictions on validation together reach {target}: no threshold is needed."
    here, rows = abstention.on(split), results.validation.rows
    coverage = here.coverage or 0.0
    reached = ""
    if here.accuracy is not None and here.accuracy_interval is not None:
        low, high = (percent(end) for end in here.accuracy_interval)
        reached = f" with an accuracy of {percent(here.accuracy)} (95 % interval {low} to {high})"
    rest = f"; the other {percent(1 - coverage)} would go to a person" if coverage < 1 else ""
    margin = (
        "with a confidence of 95 %"
        if abstention.guaranteed
        else f"whose {rows:,} documents are too few to be confident that more reach it, too"
    )
    below = f"a probability of {abstention.threshold:.3f}"
    text = f"To reach {target}, the model should abstain below {below}"
    if abstention.saved:
        text = f"To reach {target}, the model predicts no label below {below}"
    return (
        f"{text}, chosen on validation, {margin}. On {split}, that covers {percent(coverage)} of "
        f"the documents{reached}{rest}.{'' if abstention.saved else _explain_unsaved(results)}"
    )


def _explain_unsaved(results: Results) -> str:
    """That the saved model has no threshold for the probability of its prediction."""
    if results.out_of_scope is None:
        return " This model does not abstain: score.target_accuracy has it do so."
    return (
        " A low probability alone does not make this model abstain: score.target_accuracy has it "
        "do so. It gives no label to documents that it finds out of scope."
    )


def explain_truncation(results: Results | Evaluation) -> str:
    """How many documents were truncated, and whether the model is worse on them."""
    length = f"{results.model.max_length:,} tokens"
    data, reading = results.data.splits[results.analysed], results.data.reading
    split = results.analysed if isinstance(results, Results) else WHERE
    in_windows = reading.truncation == "windows"
    if not data.truncated_rows and in_windows:
        return f"No document of {split} was truncated: long ones are read in windows of {length}."
    if not data.truncated_rows:
        return f"No document of {split} was truncated: all fit into {length}."
    limit = f"{reading.max_windows:,} windows of {length}" if in_windows else length
    truncated, whole = results.truncation.truncated, results.truncation.whole
    assert truncated is not None
    metric = "exact-match accuracy" if results.data.multi_label else "accuracy"
    text = (
        f"{data.truncated_rows:,} of {data.rows:,} documents of {split} "
        f"({percent(data.truncated_rows / data.rows, 0)}) are longer than the {limit} that are "
        f"read; {data.cut_tokens:,} tokens were not read. On these documents the {metric} is "
        f"{percent(truncated.accuracy)}"
    )
    if whole is None:
        return f"{text}; there are no others."
    low, high = whole.accuracy_interval
    return (
        f"{text}, on the {whole.rows:,} others {percent(whole.accuracy)} (95 % interval "
        f"{percent(low)} to {percent(high)})."
    )


def explain_reading(results: Results) -> str:
    """What the model reads of a document, and where `pipeline` reads something else."""
    reading, length = results.data.reading, f"{results.model.max_length:,} tokens"
    if reading.text_pair is not None:
        text = (
            f"It reads pairs of texts, {length} together; of longer pairs, the longer text is "
            "truncated."
        )
    elif reading.truncation == "windows":
        most = "" if reading.max_windows is None else f", the first {reading.max_windows:,} of them"
        pooled = {
            "mean": "averaged",
            "max": "pooled by their maximum",
            "softmax": "averaged, and each counts by the softmax of its logits",
        }[reading.window_pooling]
        text = f"It reads a document in windows of {length}{most}. Their logits are {pooled}."
    else:
        text = {
            "head": f"It reads the first {length}.",
            "tail": f"It reads the last {length}.",
            "head_tail": f"Of a document of more than {length}, it reads a quarter of that from "
            "the start and the rest from the end.",
        }[reading.truncation]
    if len(reading.text) == 1 and reading.template is not None:
        text += f" Each text is first put into the template ‘{reading.template}’."
    if len(reading.text) > 1:
        joined = "one after the other" if reading.template is None else "joined by a template"
        text += f" A document consists of several texts, {joined} (`document` in config.json)."
    if reading.truncation in ("windows", "head_tail"):
        text += f" `pipeline` truncates to the first {length}; `finetune.predict` reads as in "
        text += "training."
    return text
