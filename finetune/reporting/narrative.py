"""Results → what they say in words, and what to try next.

Rules of thumb over `results.json`, each from a number that it names. Nothing is measured here.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.config.schema import LEAST_STEPS

FEW = 500  # documents in all, of which a tenth would be too few to tell much
GUESS = "always giving the commonest label"

Results = Mapping[str, Any]
Log = Sequence[Mapping[str, Any]]


def percent(share: float, digits: int = 1) -> str:
    """`97.4 %`, on one line."""
    return f"{100 * share:.{digits}f}\u00a0%"


def signed(points: float) -> str:
    """`+0.5` or `−0.5`."""
    return f"{points:+.1f}".replace("-", "−")


def format_seconds(value: float) -> str:
    """Seconds as a person says them: 4.2 s, 156 s, 16 min, 3.1 h."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 300:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 3 * 3600 else f"{value / 3600:.1f} h"


def format_metric(name: str, value: float) -> str:
    """A score as a person says it: 97.4 % for an accuracy, else 0.974."""
    return percent(value) if name == "accuracy" else f"{value:.3f}"


def main_metric(results: Results) -> str:
    """The metric that a reader is told first: accuracy where it was measured, else the first.

    Not of several labels a row, as few have every one of them right.
    """
    names = [name for name in results[results["analysed"]]["intervals"] if name != "loss"]
    if is_multi_label(results):
        return next((name for name in names if name != "accuracy"), "accuracy")
    return "accuracy" if "accuracy" in names or not names else names[0]


def is_multi_label(results: Results) -> bool:
    """Whether a document may have several labels."""
    return bool(results["data"].get("multi_label"))


def is_tuned(results: Results) -> bool:
    """Whether there was a validation split, which picks the model and calibrates it."""
    return bool(results["validation"]["labelled"])


def _gap(results: Results) -> tuple[str, str, Mapping[str, Any]]:
    """What the model is compared to, by what, in words, and the paired difference.

    TF-IDF; or always giving the commonest label, where that does better still, and the model is not
    clearly better than it by macro-F1 either: of rare labels, accuracy sees little.
    """
    metric, of = ("f1_micro", "micro-F1") if is_multi_label(results) else ("accuracy", "accuracy")
    plain, guess = (
        results["baselines"][name]["paired_difference"] for name in ("tfidf", "majority")
    )
    is_less = guess[metric]["difference"] < plain[metric]["difference"]
    if is_less and guess["f1_macro"]["interval"][0] <= 0:
        return GUESS, of, guess[metric]
    return "TF-IDF with logistic regression", of, plain[metric]


def summary_lines(results: Results) -> Iterator[str]:
    """A few lines for the terminal: the comparison, the weakest class, calibration."""
    plain = results["baselines"]
    if plain is not None:
        yield against_baseline(results)
    worst = weakest(results)
    if len(results["classes"]) > 2 and worst["f1"] < 1:
        pairs = results["confused_pairs"]
        often = ""
        if pairs and not is_multi_label(results):
            one = pairs[0]
            often = (
                f"; most often confused: '{one['label']}' taken for '{one['predicted']}' "
                f"({_documents(one['rows'])})"
            )
        yield f"weakest class: '{worst['label']}', F1 {worst['f1']:.3f}{often}"
    yield calibration(results)


def weakest(results: Results) -> Mapping[str, Any]:
    """The class of the lowest F1, among those that the analysed split has."""
    there = [one for one in results["classes"] if one["support"]]
    found: Mapping[str, Any] = min(there, key=lambda one: one["f1"])
    return found


def against_baseline(results: Results) -> str:
    """Whether the encoder earns its cost, by the paired difference to the better baseline."""
    whom, of, gap = _gap(results)
    low, high = (100 * end for end in gap["interval"])
    points = 100 * gap["difference"]
    said = (
        f"{signed(points)} points of {of} against {whom} "
        f"(95 % interval {signed(low)} to {signed(high)})"
    )
    if low > 0:
        return f"{said}: better"
    if high < 0:
        return f"{said}: worse"
    return f"{said}: no clear difference"


def calibration(results: Results) -> str:
    """What calibration did, and what is left to wish."""
    found = results["calibration"]
    split = "test" if found["test"] is not None else "validation"
    before, after = (found[split][when] for when in ("before", "after"))
    said = f"probabilities are off by {after['ece']:.3f} on {split} (ECE{_honest(after, '; {}')})"
    if found["temperature"] == 1:
        return f"{said}, as trained: {found['why']}"
    return (
        f"{said}, by {before['ece']:.3f} before the logits were divided by "
        f"{found['temperature']:.2f} ({found['why']})"
    )


def _honest(found: Mapping[str, Any], said: str) -> str:
    """What honest probabilities would show, put into a sentence; earlier versions did not say."""
    chance = found.get("ece_by_chance")
    return "" if chance is None else said.format(f"honest ones would be by {chance:.3f}")


def worth(results: Results) -> str:
    """The paired difference to the better baseline, for a reader of whole sentences."""
    whom, of, gap = _gap(results)
    low, high = (100 * end for end in gap["interval"])
    if whom == GUESS:
        how = f"no better than {whom}, as far as can be told"
        if low > 0 or high < 0:
            how = f"{'better' if low > 0 else 'worse'} than {whom}"
        return (
            f"So the model is {how}: compared document by document, the difference lies between "
            f"{signed(low)} and {signed(high)} points of {of}."
        )
    if low > 0:
        return (
            f"The encoder earns its cost: compared document by document, it is better by {low:.1f} "
            f"to {high:.1f} points of {of}."
        )
    if high < 0:
        return (
            f"Here the encoder does worse: compared document by document, by {-high:.1f} to "
            f"{-low:.1f} points of {of}."
        )
    return (
        "Whether the encoder earns its cost is open: compared document by document, the difference "
        f"lies between {signed(low)} and {signed(high)} points of {of}."
    )


def calibration_in_words(results: Results) -> str:
    """What was done to the probabilities, and whether it helped."""
    found, split = results["calibration"], results["analysed"]
    before, after = (found[split][when] for when in ("before", "after"))
    honest = _honest(after, " ({}, on so many rows)")
    if found["temperature"] == 1:
        return (
            f"On {split}, the model's probabilities are off by {after['ece']:.3f} on "
            f"average{honest}. They were left as trained: {found['why']}."
        )
    sure = "less" if found["temperature"] > 1 else "more"
    return (
        f"As trained, the model's probabilities were off by {before['ece']:.3f} on average on "
        f"{split}; as saved, by {after['ece']:.3f}{honest}. Its logits are divided by "
        f"{found['temperature']:.2f}, which makes it {sure} sure and changes no answer; that was "
        f"{found['why']}."
    )


def abstention(results: Results) -> str:
    """What a threshold would buy, and where it was chosen."""
    found, split = results["abstention"], results["analysed"]
    if not is_tuned(results):
        given = ""
        if is_multi_label(results) and results["thresholds"] is None:  # of an older run
            given = " A label is given from one half on."
        elif is_multi_label(results):
            least = next(iter(results["thresholds"].values()))
            given = f" A label is given from {least:g} on, which served train best."
        return f"From which probability on to answer, validation would say; there was none.{given}"
    if found is None:
        return (
            "Where a document may have several labels, each label has a threshold of its own, "
            "chosen on validation: below it, the label is not given. There is no one answer to "
            "hold back."
        )
    asked = f"right on {percent(found['target'])}"
    if found["threshold"] is None:
        return f"On validation, no threshold makes the answers {asked}."
    here = found[split]
    if found["threshold"] == 0:
        return (
            f"All answers on validation together are {asked} already, as was asked for: no "
            "threshold is needed."
        )
    on = f"On {split}, that answers {percent(here['coverage'])} of the documents"
    right = "" if here["accuracy"] is None else f", {percent(here['accuracy'])} of them rightly"
    left = here["coverage"] < 1
    return (
        f"To be {asked} of what it answers, the model should answer where its probability is at "
        f"least {found['threshold']:.3f}, as chosen on validation. {on}{right}"
        + (f"; the other {percent(1 - here['coverage'])} would go to a person." if left else ".")
    )


def truncation(results: Results) -> str:
    """How many documents were cut, and whether the model is worse on them."""
    split, kept = results["analysed"], results["model"]["max_length"]
    data, reading = results["data"]["splits"][split], results["data"]["reading"]
    windows = reading["truncation"] == "windows"
    if not data["truncated_rows"] and windows:
        return f"Nothing: longer documents of {split} are read in windows of {kept:,} tokens."
    if not data["truncated_rows"]:
        return f"Nothing: no document of {split} is longer than the {kept:,} tokens that are read."
    share = data["truncated_rows"] / data["rows"]
    read = f"{kept:,} tokens that are read"
    if windows:
        read = f"{reading['max_windows']:,} windows of {kept:,} tokens that are read"
    said = (
        f"{data['truncated_rows']:,} of {data['rows']:,} documents of {split} "
        f"({percent(share, 0)}) are longer than the {read}; "
        f"{data['cut_tokens']:,} tokens were not read in all."
    )
    cut, whole = results["truncation"]["truncated"], results["truncation"]["whole"]
    whole_answer = " with every label" if is_multi_label(results) else ""
    right = f"The model is right{whole_answer} on {percent(cut['accuracy'])} of them"
    if whole is None:
        return f"{said} {right}; there are no others."
    low, high = whole["accuracy_interval"]
    return (
        f"{said} {right}, and on {percent(whole['accuracy'])} of the {whole['rows']:,} others "
        f"(95 % interval {percent(low)} to {percent(high)})."
    )


def reading(results: Results) -> str:
    """What the model is given of a document, and where `pipeline` gives it something else."""
    of, kept = results["data"]["reading"], results["model"]["max_length"]
    if of["text_pair"] is not None:
        said = (
            f"It reads pairs of texts, {kept:,} tokens together; of more, the longer text loses "
            "its end."
        )
    elif of["truncation"] == "windows":
        most = "" if of["max_windows"] is None else f", the first {of['max_windows']:,} of them"
        pooled = "averaged" if of["window_pooling"] == "mean" else "pooled by their maximum"
        said = (
            f"It reads a document in windows of {kept:,} tokens{most}, whose logits are {pooled}."
        )
    else:
        said = {
            "head": f"It reads the first {kept:,} tokens.",
            "tail": f"It reads the last {kept:,} tokens.",
            "head_tail": f"Of a document of more than {kept:,} tokens it reads a quarter of these "
            "from the start, and the rest from the end.",
        }[of["truncation"]]
    if len(of["text"]) == 1 and of["template"] is not None:
        said += f" Each text is put into the template ‘{of['template']}’ first."
    if len(of["text"]) > 1:
        joined = "one after the other" if of["template"] is None else "joined by a template"
        said += f" Several texts make a document, {joined} (`document` in config.json)."
    if of["truncation"] in ("windows", "head_tail"):
        said += (
            f" `pipeline` truncates to the first {kept:,} tokens; `finetune.predict` reads as in "
            "training."
        )
    return said


def next_steps(results: Results, log: Log) -> Iterator[str]:
    """What a person might do now, the most promising first.

    Args:
        log: the lines of metrics.jsonl.
    """
    data, train, classes = results["data"], results["train"], results["classes"]
    kept = [f for f in data["findings"] if f["split"] == "test" and "dropped" not in f["rule"]]
    leaks = [f for f in kept if f["kind"] in ("leak", "near leak")]
    if leaks:
        nearly = ", or nearly so," if any(f["kind"] == "near leak" for f in leaks) else ""
        counts = Counter[str]()
        for one in leaks:
            counts[one["other"]] += one["count"]
        where = ", ".join(f"{count:,} in {split}" for split, count in counts.items())
        yield (
            f"Texts of test also stand{nearly} in another split ({where}), so the score is too "
            "good by as much as the model knows them by heart: data.on_leak=drop takes them out of "
            "train."
        )
    clashes = [f for f in data["findings"] if f["kind"] == "conflicting labels"]
    if clashes:
        yield (
            f"{clashes[0]['count']:,} train rows share their text with a row of another label: "
            "agree on one label each."
        )
    yield from _few(results)
    yield from _longer(results)
    validation = [line for line in log if line["kind"] == "validation"]
    if len(validation) > 1 and results["train"]["best_step"] == validation[-1]["step"]:
        first, last = validation[-2]["loss"], validation[-1]["loss"]
        if last < 0.97 * first:
            yield (
                f"Validation loss still fell at the last scoring ({first:.3f} to {last:.3f}): "
                "try more train.epochs."
            )
    if train["clipped"] > 0.9:
        yield (
            f"{percent(train['clipped'], 0)} of the steps had their gradient clipped: optim.lr may "
            "be on the high side; try half of it."
        )
    counts = data["splits"]["train"]["classes"]
    few = [name for name, count in counts.items() if 0 < count < 30]
    if few:
        more = "" if len(few) < 4 else f" and {len(few) - 3:,} more"
        yield (
            f"{', '.join(repr(name) for name in few[:3])}{more} have fewer than 30 train rows: "
            "a few dozen documents more would help them most."
        )
    pairs = results["confused_pairs"]
    wrong = sum(one["support"] for one in classes) - sum(
        round(one["recall"] * one["support"]) for one in classes
    )
    if pairs and not is_multi_label(results) and wrong >= 5 and pairs[0]["rows"] >= 0.2 * wrong:
        one = pairs[0]
        yield (
            f"'{one['label']}' taken for '{one['predicted']}' makes up {one['rows']:,} of "
            f"{wrong:,} mistakes: read those below and sharpen what divides the two labels."
        )
    if results["baselines"] is not None:
        yield from _against_baseline(results)
    yield from _too_many_labels(results)
    if results["test"]["labelled"]:
        pair = results["test"]["intervals"].get("accuracy")
        if pair is not None and pair[1] - pair[0] > 0.05:
            yield (
                f"The interval is {100 * (pair[1] - pair[0]):.0f} points wide: differences of less "
                "than that between two models need more test documents (four times as many halve "
                "it), or scripts/compare.py, which compares row by row."
            )
    if results["mistakes"]:
        yield "Read the surest mistakes below first: where the label is wrong, mend the data."


def _few(results: Results) -> Iterator[str]:
    """What serves where there are few documents."""
    steps = results["train"]["steps"]
    planned = results["train"].get("planned_steps", steps)  # more, where patience ended it
    least = min(results["train"].get("min_steps") or LEAST_STEPS, LEAST_STEPS)
    if max(steps, planned) < least:
        yield (
            f"{steps:,} steps train hardly anything: leave train.epochs and train.max_steps out, "
            f"and few rows are gone through until there are {least}."
        )
    splits = results["data"]["splits"]
    rows = sum(split["rows"] for split in splits.values())
    carved = splits["test"].get("origin", "").startswith("carved from")
    if carved and rows < FEW and results["data"].get("folds") is None:
        yield (
            f"{rows:,} documents are few to cut a test split from: run.folds=5 scores each of them "
            "by a model that has not seen it, and trains on all."
        )


def _against_baseline(results: Results) -> Iterator[str]:
    """What to do where the encoder does not earn its cost."""
    whom, of, gap = _gap(results)
    how = "worse" if gap["interval"][1] < 0 else "not clearly better"
    if gap["interval"][0] <= 0 and whom == GUESS:
        yield (
            f"The model is {how} than {whom}, by {of}: it has learnt next to nothing; try more "
            f"{_length(results)}, or more documents."
        )
    elif gap["interval"][0] <= 0:
        yield (
            f"The encoder is {how} than {whom} here, which trains in seconds: more data, more "
            "epochs or a larger encoder must show their worth."
        )


def _too_many_labels(results: Results) -> Iterator[str]:
    """What labels that are given to nearly every document tell."""
    rows = results["data"]["splits"][results["analysed"]]["rows"]
    given, there = (
        sum(one[key] for one in results["classes"]) / rows for key in ("predicted", "support")
    )
    if is_multi_label(results) and given > 2 * there:
        yield (
            f"A document is given {given:.1f} labels and has {there:.1f}: the model hardly tells "
            "them apart yet, so more recall makes up for less precision; try more "
            f"{_length(results)}."
        )


def _length(results: Results) -> str:
    """The key that would train the run for longer."""
    return "train.min_steps" if results["train"].get("min_steps") else "train.epochs"


def _longer(results: Results) -> Iterator[str]:
    """Whether documents lost what the model would need."""
    split = results["data"]["splits"][results["analysed"]]
    share = split["truncated_rows"] / split["rows"]
    cut, whole = (results["truncation"][key] for key in ("truncated", "whole"))
    if share < 0.1:
        return
    reading = results["data"]["reading"]
    more = "a larger data.max_length"
    if reading["truncation"] == "windows":
        more = "a larger data.max_windows"
    elif reading["text_pair"] is None:
        more += ", or data.truncation=windows,"
    long = f"{percent(share, 0)} of the documents are longer than what is read of them"
    if whole is not None and cut["accuracy"] < whole["accuracy_interval"][0]:
        yield (
            f"{long}, and the model is right on {percent(cut['accuracy'])} of them, on "
            f"{percent(whole['accuracy'])} of the others: try {more.removesuffix(',')}."
        )
    elif share > 0.5:
        yield f"{long}: {more} may help, at the price of time."


def _documents(count: int) -> str:
    return f"{count:,} document{'s' * (count != 1)}"
