"""The predictions of a split, a line of JSON for each row: written, and read back row by row.

    write_predictions(folder / FILE, split, labels, logits)
    for prediction in read_predictions(folder / FILE, labels): …

    {"row": "test.csv: row 3", "id": "T-17", "label": "refund", "predicted": "delivery",
     "probabilities": {"delivery": 0.81, "refund": 0.19}, "text": "Where is my money…"}

Neither side holds more than the row at hand. `id` is there where the recipe has `data.id`, `label`
where the split has labels; both labels are lists where a row may have several. A pair also has
`texts`, how each of its two begins. Of numbers, both are numbers, with `low` and `high` of the
prediction interval in place of probabilities. Of several tasks, both are objects of task → label.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune.data.corpus import Split, label_names_of
from finetune.data.label_tasks import Tasks
from finetune.evaluation.probabilities import predict_labels, to_probabilities
from finetune.runtime.atomic_files import write_text
from finetune.runtime.errors import InputError

FILE = "predictions/test.jsonl"  # in a run's folder
DIGITS = 6  # of a probability
EXCERPT = 200  # characters of a text that are kept, so that a document is recognised


class Prediction(NamedTuple):
    """A row's line.

    Attributes:
        row: where the row comes from.
        id: its identifier; None without `data.id`, or where the row has none.
        label: by name, or a list of names; None without labels.
        predicted: as `label`.
        probabilities: in the order of the labels.
        text: how the document begins; empty in files of earlier versions.
    """

    row: str
    id: Any
    label: str | list[str] | None
    predicted: str | list[str]
    probabilities: list[float]
    text: str


def write_predictions(
    file: Path,
    split: Split,
    labels: Sequence[str],
    logits: NDArray[np.float32],
    multi_label: bool | Tasks = False,
    thresholds: NDArray[np.float64] | None = None,
    half_width: float | None = None,
) -> None:
    """Write a line for each row of a split.

    Args:
        logits: (rows, classes)
        multi_label: whether a row may have several labels; or the tasks that they are of.
        half_width: of numbers: that of their prediction interval; None: there is none.
    """
    if len(labels) == 1:
        write_text(file, _number_lines(split, logits, half_width))
        return
    if isinstance(multi_label, Tasks):
        write_text(file, _task_lines(split, labels, logits, multi_label))
        return
    predictions = predict_labels(logits, multi_label, thresholds)
    write_text(file, _lines(split, labels, predictions, logits))


def _lines(
    split: Split,
    labels: Sequence[str],
    predictions: NDArray[Any],
    logits: NDArray[np.float32],
) -> Iterator[str]:
    for i, (predicted, text) in enumerate(zip(predictions, split.whole(), strict=True)):
        line = _start(split, i)
        if split.labels is not None:
            line["label"] = _names(split.labels[i], labels)
        line["predicted"] = _names(predicted, labels)
        [row] = to_probabilities(logits[i : i + 1], predictions.ndim == 2)
        rounded = [round(float(one), DIGITS) for one in row]
        line["probabilities"] = dict(zip(labels, rounded, strict=True))
        yield _finish(line, split, i, text)


def _number_lines(
    split: Split, logits: NDArray[np.float32], half_width: float | None
) -> Iterator[str]:
    for i, (predicted, text) in enumerate(zip(logits[:, 0].tolist(), split.whole(), strict=True)):
        line = _start(split, i)
        if split.labels is not None:
            line["label"] = float(split.labels[i])
        line["predicted"] = predicted
        if half_width is not None:
            line |= {"low": predicted - half_width, "high": predicted + half_width}
        yield _finish(line, split, i, text)


def _task_lines(
    split: Split, labels: Sequence[str], logits: NDArray[np.float32], tasks: Tasks
) -> Iterator[str]:
    for i, (chosen, text) in enumerate(zip(tasks.choose(logits), split.whole(), strict=True)):
        line = _start(split, i)
        if split.labels is not None:
            of_row = split.labels[i]
            line["label"] = {
                task.name: task.labels[of_row[task.block].argmax()]
                if of_row[task.block].any()
                else None
                for task in tasks
            }
        line["predicted"] = {
            task.name: task.labels[best] for task, best in zip(tasks, chosen, strict=True)
        }
        [row] = to_probabilities(logits[i : i + 1], True)
        line["probabilities"] = dict(zip(labels, row.round(DIGITS).tolist(), strict=True))
        yield _finish(line, split, i, text)


def _start(split: Split, i: int) -> dict[str, Any]:
    """A row's line, up to its label."""
    line: dict[str, Any] = {"row": split.places.place(i)}
    return line if split.ids is None else line | {"id": split.ids[i]}


def _finish(line: dict[str, Any], split: Split, i: int, text: str) -> str:
    line["text"] = _shorten(text)
    if split.seconds is not None:
        line["texts"] = [_shorten(split.texts[i]), _shorten(split.seconds[i])]
    return json.dumps(line, ensure_ascii=False) + "\n"


def _shorten(text: str) -> str:
    return text[:EXCERPT] + "…" * (len(text) > EXCERPT)


def _names(classes: Any, labels: Sequence[str]) -> str | list[str]:
    """A row's label by name; of a multi-label row, the list of all of them."""
    names = label_names_of(classes, labels)
    return names if np.ndim(classes) else names[0]


def read_predictions(file: Path, labels: Sequence[str]) -> Iterator[Prediction]:
    """The rows of a file of predictions, in its order.

    Raises:
        InputError: where there is no such file, or for a line that is damaged.
    """
    if not file.is_file():
        raise InputError(f"{file}: the predictions of the run are not there")
    # Not by splitlines(), which breaks at U+2028 in a label or a text.
    with file.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _read(json.loads(line), labels)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                why = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise InputError(
                    f"{file}: line {number} is damaged ({why}); train the recipe beside it again"
                ) from None


def _read(line: dict[str, Any], labels: Sequence[str]) -> Prediction:
    found = line["probabilities"]
    # Earlier versions wrote them without names.
    probabilities = found if isinstance(found, list) else [found[label] for label in labels]
    return Prediction(
        line["row"],
        line.get("id"),
        line.get("label"),
        line["predicted"],
        probabilities,
        line.get("text", ""),
    )
