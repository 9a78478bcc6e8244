"""The labels of an ordered task → from the lowest to the highest."""

import math

from finetune.config.schema import Data
from finetune.runtime.errors import InputError, shorten


def order_labels(labels: tuple[str, ...], data: Data) -> tuple[str, ...]:
    """The label space in its order: as the recipe has it, or numbers by their value.

    Raises:
        InputError: where the labels are no numbers and the recipe does not name their order, or two
            are the same number.
    """
    if data.task != "ordered" or data.label_order is not None:
        return labels
    values = {label: _number(label) for label in labels}
    strange = [label for label, value in values.items() if value is None]
    if strange:
        raise InputError(
            "data.label_order: expected the labels from the lowest to the highest with data.task "
            f"'ordered', as {'they are' if len(strange) == len(labels) else 'some are'} no "
            f"numbers, got null; the labels are {shorten(labels, 20)}"
        )
    by_value: dict[float | None, str] = {}
    for label, value in values.items():
        if (other := by_value.setdefault(value, label)) != label:
            raise InputError(
                f"data.label: expected one spelling of each number with data.task 'ordered', got "
                f"'{other}' and '{label}', which have the same rank; write them alike"
            )
    return tuple(sorted(labels, key=lambda label: values[label] or 0.0))


def _number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
