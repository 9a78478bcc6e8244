"""Results and the log → what to try next, ordered by how much each can change.

    for step in suggest_next_steps(results, log, "runs/bbc_news/…/recipe.yaml"): print(step)

Each advice comes from a number that it names, and is ordered by what it changes at most: the share
of documents whose prediction, or whose part in the score, it can concern. What concerns none is
left out; so a model without a mistake gets no advice on how to make fewer. Of advice on the same
thing, the one that matters most is given.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from finetune.config.schema import LEAST_STEPS
from finetune.reporting.baseline_comparison import MAJORITY, MEAN, compare_to_baseline
from finetune.reporting.narrative import main_metric
from finetune.reporting.number_formats import percent
from finetune.reporting.results_model import Results
from finetune.runtime import commands

FEW_DOCUMENTS = 500  # in all: a tenth of them is too few to tell much
FEW_ROWS = 30  # of a label in train
WIDE = 0.05  # of an interval
LEAST_EFFECT = 0.0005  # of the documents; what concerns fewer is not worth a run

Log = Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl


class Advice(NamedTuple):
    """Something to try.

    Attributes:
        topic: what it is about; of each topic, one advice is given.
        effect: the share of the analysed documents that it concerns at most.
    """

    topic: str
    effect: float
    text: str


class Run(NamedTuple):
    """What advice is drawn from."""

    results: Results
    log: Log
    recipe: str

    def again(self, *overrides: str) -> str:
        """The command that trains the same with other settings."""
        return _command("train", self.recipe, *overrides)

    @property
    def error(self) -> float:
        """How far the metric that picks the model is from its best."""
        value = self.results.scores.metric(main_metric(self.results))
        return 1.0 if value is None else min(1.0, max(0.0, 1 - value))

    def longer(self) -> list[str]:
        """The overrides that train twice as long."""
        if self.results.train.minutes is not None:  # whose saved recipe names the steps
            open_again = ["train.max_steps=null", "train.min_steps=null", "score.every=epoch"]
            return [f"train.minutes={2 * self.results.train.minutes:g}", *open_again]
        if self.results.train.min_steps:
            return [f"train.min_steps={2 * self.results.train.steps}"]
        epochs = max((line["epoch"] for line in self.log if "epoch" in line), default=3.0)
        return [f"train.epochs={2 * math.ceil(epochs)}"]


def suggest_next_steps(
    results: Results, log: Log, recipe: str | os.PathLike[str] = "recipe.yaml"
) -> list[str]:
    """What a person might do now, the most promising first.

    Args:
        log: the lines of metrics.jsonl.
        recipe: the run's recipe.yaml, which the commands name.
    """
    run = Run(results, log, str(recipe))
    rules = (
        _leaks,
        _conflicting_labels,
        _few_steps,
        _left_out_train,
        _left_out_test,
        _few_documents,
        _long_documents,
        _falling_loss,
        _divergence,
        _rare_labels,
        _confused_pair,
        _baseline,
        _too_many_labels,
        _wide_interval,
        _mistakes,
    )
    advice = [one for rule in rules for one in rule(run) if one.effect >= LEAST_EFFECT]
    advice.sort(key=lambda one: -one.effect)  # stable: of the same effect, in the order above
    first = {one.topic: one for one in reversed(advice)}
    return [one.text for one in advice if first[one.topic] is one]


def _leaks(run: Run) -> Iterator[Advice]:
    leaks = [
        one
        for one in run.results.data.findings
        if one.split == "test" and one.kind in ("leak", "near leak") and "dropped" not in one.rule
    ]
    if not leaks:
        return
    near = " or near-duplicates of them" * any(one.kind == "near leak" for one in leaks)
    counts = Counter[str]()
    for one in leaks:
        counts[one.other] += one.count
    where = ", ".join(f"{count:,} in {split}" for split, count in counts.items())
    rows = run.results.data.splits["test"].rows
    share = min(1.0, counts.total() / rows)
    yield Advice(
        "leaks",
        share,
        f"Test texts{near} are also in another split ({where}): {percent(share)} of test. This "
        "leakage makes the score too high, by at most that share. Remove them from train: "
        f"{run.again('data.on_leak=drop')}",
    )


def _conflicting_labels(run: Run) -> Iterator[Advice]:
    findings, train = run.results.data.findings, run.results.data.splits["train"]
    if any(one.kind == "limited" and one.split == "train" for one in findings):
        return  # counted before rows were left out: those in conflict may not have been trained on
    what = "label" if run.results.numbers is None else "number"
    for one in findings:
        if one.kind == "conflicting labels" and one.split == "train":
            yield Advice(
                "labels of train",
                min(0.5 * one.count / max(1, train.rows), run.error),
                f"{one.count:,} of {train.rows:,} train rows share their text with a row of "
                f"another {what}, so that at least half of these are wrong for some reader. Give "
                f"each text one {what}.",
            )
            return


def _few_steps(run: Run) -> Iterator[Advice]:
    train = run.results.train
    least = min(train.min_steps or LEAST_STEPS, LEAST_STEPS)
    if max(train.steps, train.planned_steps) < least:
        yield Advice(
            "length",
            run.error,
            f"{train.steps:,} steps are too few to train on. With epochs chosen automatically, a "
            f"small train split is repeated up to {least} steps: "
            f"{run.again('train.epochs=auto', 'train.max_steps=null')}",
        )


def _left_out(results: Results, split: str) -> int:
    """The rows that data.max_train_rows or data.max_test_rows leaves out of a split."""
    key = f"data.max_{split}_rows"
    return sum(
        one.count
        for one in results.data.findings
        if (one.kind, one.split) == ("limited", split) and key in one.rule
    )


def _left_out_train(run: Run) -> Iterator[Advice]:
    left_out, rows = _left_out(run.results, "train"), run.results.data.splits["train"].rows
    if left_out:
        yield Advice(
            "rows of train",
            run.error * left_out / (rows + left_out),
            f"data.max_train_rows left {left_out:,} of {rows + left_out:,} train rows out. Train "
            f"on more of them: {run.again(_raise_limit('train', rows, left_out))}",
        )


def _left_out_test(run: Run) -> Iterator[Advice]:
    left_out, rows = _left_out(run.results, "test"), run.results.data.splits["test"].rows
    if left_out:
        yield Advice(
            "test split",
            # Before the advice to find other documents.
            _accuracy_width(run.results) / 2 + LEAST_EFFECT,
            f"data.max_test_rows left {left_out:,} of {rows + left_out:,} test rows out. Score "
            f"more of them for narrower intervals: "
            f"{run.again(_raise_limit('test', rows, left_out))}",
        )


def _raise_limit(split: str, rows: int, left_out: int) -> str:
    """The override that takes up to four times the rows."""
    most = str(4 * rows) if 4 * rows < rows + left_out else "null"
    return f"data.max_{split}_rows={most}"


def _few_documents(run: Run) -> Iterator[Advice]:
    splits = run.results.data.splits
    rows = sum(split.rows for split in splits.values())
    is_carved = splits["test"].origin.startswith("split off from")
    can_fold = run.results.data.folds is None and run.results.out_of_scope is None
    can_fold &= run.results.numbers is None and not run.results.tasks
    can_fold &= not any(_left_out(run.results, split) for split in ("train", "test"))
    if is_carved and rows < FEW_DOCUMENTS and can_fold:
        width = _accuracy_width(run.results)
        yield Advice(
            "test split",
            max(width, WIDE) / 2 + LEAST_EFFECT,  # before advice to find more test documents
            f"A test split of {splits['test'].rows:,} of {rows:,} documents is small. "
            "Cross-validation scores every document, and trains the final model on all: "
            f"{run.again('run.folds=5')}",
        )


def _long_documents(run: Run) -> Iterator[Advice]:
    results = run.results
    split = results.data.splits[results.analysed]
    share = split.truncated_rows / split.rows
    truncated, whole = results.truncation.truncated, results.truncation.whole
    if share < 0.1 or truncated is None:
        return
    text, how = f"{percent(share, 0)} of the documents are truncated", _read_more(run)
    if how is None:
        return
    if whole is not None and truncated.accuracy < whole.accuracy_interval[0]:
        yield Advice(
            "reading",
            share * (whole.accuracy - truncated.accuracy),
            f"{text}; the accuracy on them is {percent(truncated.accuracy)}, on the others "
            f"{percent(whole.accuracy)}. Read more of them: {how}",
        )
    elif whole is None or share > 0.5:
        # Nothing tells how much that costs: at most the mistakes on what is not read to its end.
        cut = _share_of_tokens_cut(results)
        yield Advice(
            "reading",
            share * (1 - truncated.accuracy) * cut,
            f"{text}, and lose {percent(cut, 0)} of all tokens. Read more of them: {how}",
        )


def _read_more(run: Run) -> str | None:
    """The command that reads more of long documents, by the audit of what each way would cut."""
    reading, audit = run.results.data.reading, run.results.data.truncation_audit
    if reading.truncation == "windows":
        if reading.max_windows is None:
            return None
        return run.again(f"data.max_windows={2 * reading.max_windows}")
    now = next((one for one in audit if one.chosen), None)
    better = [one for one in audit if now is not None and one.tokens_cut < 0.5 * now.tokens_cut]
    if better:
        cheapest = min(better, key=lambda one: one.time)
        words = [f"data.max_length={cheapest.max_length}"]
        if cheapest.windows:
            words.append("data.truncation=windows")
        return f"{run.again(*words)} (about {cheapest.time:.1f} times the time)"
    return None if reading.text_pair is not None else run.again("data.truncation=windows")


def _share_of_tokens_cut(results: Results) -> float:
    chosen = next((one for one in results.data.truncation_audit if one.chosen), None)
    return 1.0 if chosen is None or not chosen.tokens else chosen.tokens_cut / chosen.tokens


def _falling_loss(run: Run) -> Iterator[Advice]:
    scorings = [line for line in run.log if line["kind"] == "validation"]
    if len(scorings) < 2 or run.results.train.best_step != scorings[-1]["step"]:
        return
    before, last = scorings[-2]["loss"], scorings[-1]["loss"]
    if last < 0.97 * before:
        yield Advice(
            "length",
            run.error * (1 - last / before),  # as much again as in the last interval
            f"Validation loss was still falling at the end ({before:.3f} to {last:.3f}). Train "
            f"longer: {run.again(*run.longer())}",
        )


def _divergence(run: Run) -> Iterator[Advice]:
    """A rate that was too high; that steps are clipped is no sign of one with SGD, its default."""
    back_offs = run.results.train.back_offs
    rates = [line["lr"] for line in run.log if "lr" in line]
    if back_offs and rates:
        rate = back_offs[-1].rate_scale * max(rates)
        yield Advice(
            "rate",
            run.error,
            f"The run diverged at step {back_offs[-1].diverged_at:,} and went on with a lower "
            f"learning rate. Begin with that one: {run.again(f'optim.lr={rate:.3g}')}",
        )


def _rare_labels(run: Run) -> Iterator[Advice]:
    results = run.results
    counts = results.data.splits["train"].classes
    scored = {one.label: one for one in results.classes if one.support}
    rare = [name for name, count in counts.items() if 0 < count < FEW_ROWS]
    missed = sum(1 - (scored[name].f1 or 0.0) for name in rare if name in scored)
    if rare and len(scored) > 0:
        more = "" if len(rare) < 4 else f" and {len(rare) - 3:,} more"
        have = "has" if len(rare) == 1 else "have"
        is_macro = "macro" in main_metric(results)  # which counts each label alike
        yield Advice(
            "rare labels",
            missed / len(scored) if is_macro else _missed_rows(results, rare),
            f"{', '.join(map(repr, rare[:3]))}{more} {have} fewer than {FEW_ROWS} train rows. Add "
            "documents of these labels.",
        )


def _missed_rows(results: Results, labels: Sequence[str]) -> float:
    """The share of the analysed rows that have one of these labels, and were not given it."""
    missed = sum(
        one.support * (1 - (one.recall or 0.0)) for one in results.classes if one.label in labels
    )
    return missed / results.data.splits[results.analysed].rows


def _confused_pair(run: Run) -> Iterator[Advice]:
    results = run.results
    classes = results.classes
    if results.data.multi_label or not results.confused_pairs or len(classes) < 3:
        return  # of two labels, every mistake confuses the two
    pair = results.confused_pairs[0]
    right = sum(round((one.recall or 0.0) * one.support) for one in classes)
    wrong = sum(one.support for one in classes) - right
    if wrong >= 5 and pair.rows >= 0.2 * wrong:
        yield Advice(
            "labels",
            pair.rows / results.data.splits[results.analysed].rows,
            f"'{pair.label}' predicted as '{pair.predicted}' makes up {pair.rows:,} of {wrong:,} "
            "mistakes. Read those below, and define more sharply what separates the two labels.",
        )


def _baseline(run: Run) -> Iterator[Advice]:
    """What to do where the encoder does not earn its cost."""
    if run.results.baselines is None:
        return
    gap = compare_to_baseline(run.results)
    if gap.is_better:
        return
    how = "worse" if gap.is_worse else "not clearly better"
    effect = min(run.error, max(0.0, -gap.interval[0] / 100))
    if gap.baseline in (MAJORITY, MEAN):
        yield Advice(
            "length",
            run.error,
            f"The model is {how} than {gap.baseline} by {gap.metric}: it has learned next to "
            f"nothing. Train longer, or on more documents: {run.again(*run.longer())}",
        )
    else:
        yield Advice(
            "length",
            effect,
            f"The model is {how} than {gap.baseline}, which trains in seconds. Train longer, on "
            f"more documents, or with a larger encoder: {run.again(*run.longer())}",
        )


def _too_many_labels(run: Run) -> Iterator[Advice]:
    """Whether labels are given to nearly every document."""
    results = run.results
    rows = results.data.splits[results.analysed].rows
    predicted = sum(one.predicted for one in results.classes) / rows
    true = sum(one.support for one in results.classes) / rows
    if results.data.multi_label and predicted > 2 * true:
        yield Advice(
            "labels per document",
            run.error,
            f"The model predicts {predicted:.1f} labels a document, where {true:.1f} are true: it "
            "hardly separates them yet, so low thresholds trade precision for recall. Train "
            f"longer: {run.again(*run.longer())}",
        )


def _wide_interval(run: Run) -> Iterator[Advice]:
    width = _accuracy_width(run.results)
    if width > WIDE:
        yield Advice(
            "test split",
            width / 2,
            f"The 95 % interval of the accuracy is {100 * width:.0f} points wide. To tell closer "
            "models apart, use more test documents (four times as many halve it), or compare two "
            f"runs document by document: {_command('compare', 'RUN', 'OTHER_RUN')}",
        )


def _command(*words: str) -> str:
    """A command by its plain name: a page is read on other machines than the one that wrote it."""
    return f"`{commands.NAME} {commands.quote([*words])}`"


def _accuracy_width(results: Results) -> float:
    interval = results.test.intervals.get("accuracy")
    return 0.0 if interval is None else interval[1] - interval[0]


def _mistakes(run: Run) -> Iterator[Advice]:
    if run.results.numbers is not None and run.results.numbers.largest:
        yield Advice(
            "mistakes",
            LEAST_EFFECT,
            "Read the largest errors below first. Where the number of the data is wrong, correct "
            "it.",
        )
    if run.results.mistakes:
        yield Advice(
            "mistakes",
            LEAST_EFFECT,  # how many of them are the labels' fault is not known: last
            "Read the most confident mistakes below first. Where the label is wrong, correct it. "
            "This ranks the rows of train and validation by how doubtful their label is: "
            f"{_command('suspects', run.recipe, '--output', 'suspects.csv')}",
        )
