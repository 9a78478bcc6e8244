"""Label names with levels → whether they are paths."""

from collections.abc import Sequence

from finetune.config.schema import Data
from finetune.runtime.errors import InputError, shorten


def check_levels(labels: Sequence[str], data: Data) -> None:
    """
    Raises:
        InputError: where the separator is in no label, a level of one has no name, or one is
            spelled in two ways.
    """
    separator = data.hierarchy
    if separator is None:
        return
    if not any(separator in label for label in labels):
        raise InputError(
            f"data.hierarchy: expected labels with '{separator}' between their levels, found none "
            f"in {shorten([repr(label) for label in labels], 5)}; set it to what separates them, "
            "or to null"
        )
    nameless = [
        repr(label) for label in labels if not all(part.strip() for part in label.split(separator))
    ]
    if nameless:
        raise InputError(
            f"data.hierarchy: expected a name for each level between '{separator}', got "
            f"{shorten(nameless)}"
        )
    spelled: dict[tuple[str, ...], str] = {}
    for label in labels:
        parts = label.split(separator)
        for end in range(1, len(parts) + 1):
            node = separator.join(parts[:end])
            plain = tuple(part.strip() for part in parts[:end])
            if (first := spelled.setdefault(plain, node)) != node:
                raise InputError(
                    f"data.hierarchy: expected one spelling of each level, got {first!r} and "
                    f"{node!r}, which differ by white space beside '{separator}'; write them alike"
                )
