"""Results and the log → what to try next: rules of thumb, each from a number that it names."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.config.schema import LEAST_STEPS
from finetune.reporting.narrative import MAJORITY, compare_to_baseline
from finetune.reporting.number_formats import percent
from finetune.reporting.results_model import Results

FEW_DOCUMENTS = 500  # in all: a tenth of them is too few to tell much
FEW_ROWS = 30  # of a label in train
WIDE = 0.05  # of an interval

Log = Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl


def suggest_next_steps(results: Results, log: Log) -> list[str]:
    """What a person might do now, the most promising first."""
    rules = (
        _leaks,
        _conflicting_labels,
        _few_steps,
        _few_documents,
        _long_documents,
        lambda results: _falling_loss(results, log),
        _clipped_gradients,
        _rare_labels,
        _confused_pair,
        _baseline,
        _too_many_labels,
        _wide_interval,
        _mistakes,
    )
    return [step for rule in rules for step in rule(results)]


def _leaks(results: Results) -> Iterator[str]:
    leaks = [
        one
        for one in results.data.findings
        if one.split == "test" and one.kind in ("leak", "near leak") and "dropped" not in one.rule
    ]
    if not leaks:
        return
    near = " or near-duplicates of them" * any(one.kind == "near leak" for one in leaks)
    counts = Counter[str]()
    for one in leaks:
        counts[one.other] += one.count
    where = ", ".join(f"{count:,} in {split}" for split, count in counts.items())
    yield (
        f"Test texts{near} are also in another split ({where}). This leakage makes the score too "
        "high. Set data.on_leak=drop to remove them from train."
    )


def _conflicting_labels(results: Results) -> Iterator[str]:
    for one in results.data.findings:
        if one.kind == "conflicting labels":
            yield (
                f"{one.count:,} train rows share their text with a row of another label. Give "
                "each text one label."
            )
            return


def _few_steps(results: Results) -> Iterator[str]:
    train = results.train
    least = min(train.min_steps or LEAST_STEPS, LEAST_STEPS)
    if max(train.steps, train.planned_steps) < least:
        yield (
            f"{train.steps:,} steps are too few to train on. Leave out train.epochs and "
            f"train.max_steps: a small train split is then repeated up to {least} steps."
        )


def _few_documents(results: Results) -> Iterator[str]:
    splits = results.data.splits
    rows = sum(split.rows for split in splits.values())
    is_carved = splits["test"].origin.startswith("split off from")
    if is_carved and rows < FEW_DOCUMENTS and results.data.folds is None:
        yield (
            f"A test split of {rows:,} documents in all is small. Set run.folds=5 for "
            "cross-validation: it scores every document and trains the final model on all."
        )


def _long_documents(results: Results) -> Iterator[str]:
    split, reading = results.data.splits[results.analysed], results.data.reading
    share = split.truncated_rows / split.rows
    truncated, whole = results.truncation.truncated, results.truncation.whole
    if share < 0.1 or truncated is None:
        return
    keys = "a larger data.max_length"
    if reading.truncation == "windows":
        keys = "a larger data.max_windows"
    elif reading.text_pair is None:
        keys += " or data.truncation=windows"
    text = f"{percent(share, 0)} of the documents are truncated"
    if whole is not None and truncated.accuracy < whole.accuracy_interval[0]:
        yield (
            f"{text}; the accuracy on them is {percent(truncated.accuracy)}, on the others "
            f"{percent(whole.accuracy)}. Try {keys}."
        )
    elif share > 0.5:
        yield f"{text}. Try {keys}, at the cost of time."


def _falling_loss(results: Results, log: Log) -> Iterator[str]:
    scorings = [line for line in log if line["kind"] == "validation"]
    if len(scorings) < 2 or results.train.best_step != scorings[-1]["step"]:
        return
    before, last = scorings[-2]["loss"], scorings[-1]["loss"]
    if last < 0.97 * before:
        yield (
            f"Validation loss was still falling at the end ({before:.3f} to {last:.3f}). Try more "
            "train.epochs."
        )


def _clipped_gradients(results: Results) -> Iterator[str]:
    if results.train.clipped > 0.9:
        yield (
            f"{percent(results.train.clipped, 0)} of the steps had their gradient clipped. The "
            "learning rate may be too high: try half of optim.lr."
        )


def _rare_labels(results: Results) -> Iterator[str]:
    counts = results.data.splits["train"].classes
    rare = [name for name, count in counts.items() if 0 < count < FEW_ROWS]
    if rare:
        more = "" if len(rare) < 4 else f" and {len(rare) - 3:,} more"
        have = "has" if len(rare) == 1 else "have"
        yield (
            f"{', '.join(map(repr, rare[:3]))}{more} {have} fewer than {FEW_ROWS} train rows. More "
            "documents of these labels would help most."
        )


def _confused_pair(results: Results) -> Iterator[str]:
    if results.data.multi_label or not results.confused_pairs:
        return
    classes, pair = results.classes, results.confused_pairs[0]
    right = sum(round(one.recall * one.support) for one in classes)
    wrong = sum(one.support for one in classes) - right
    if wrong >= 5 and pair.rows >= 0.2 * wrong:
        yield (
            f"'{pair.label}' predicted as '{pair.predicted}' makes up {pair.rows:,} of {wrong:,} "
            "mistakes. Read those below, and define more sharply what separates the two labels."
        )


def _baseline(results: Results) -> Iterator[str]:
    """What to do where the encoder does not earn its cost."""
    if results.baselines is None:
        return
    gap = compare_to_baseline(results)
    if gap.is_better:
        return
    how = "worse" if gap.is_worse else "not clearly better"
    if gap.baseline == MAJORITY:
        yield (
            f"The model is {how} than {gap.baseline} by {gap.metric}: it has learned next to "
            f"nothing. Try more {_training_length(results)}, or more documents."
        )
    else:
        yield (
            f"The model is {how} than {gap.baseline}, which trains in seconds. Try more documents, "
            "more epochs or a larger encoder."
        )


def _too_many_labels(results: Results) -> Iterator[str]:
    """Whether labels are given to nearly every document."""
    rows = results.data.splits[results.analysed].rows
    predicted = sum(one.predicted for one in results.classes) / rows
    true = sum(one.support for one in results.classes) / rows
    if results.data.multi_label and predicted > 2 * true:
        yield (
            f"The model predicts {predicted:.1f} labels a document, where {true:.1f} are true: it "
            "hardly separates them yet, so low thresholds trade precision for recall. Try more "
            f"{_training_length(results)}."
        )


def _wide_interval(results: Results) -> Iterator[str]:
    interval = results.test.intervals.get("accuracy")
    if interval is not None and interval[1] - interval[0] > WIDE:
        yield (
            f"The 95 % interval of the accuracy is {100 * (interval[1] - interval[0]):.0f} points "
            "wide. To tell closer models apart, use more test documents (four times as many halve "
            "it) or `finetune compare`, which compares them document by document."
        )


def _mistakes(results: Results) -> Iterator[str]:
    if results.mistakes:
        yield "Read the most confident mistakes below first. Where the label is wrong, correct it."


def _training_length(results: Results) -> str:
    """The key that would train the run for longer."""
    return "train.min_steps" if results.train.min_steps else "train.epochs"
