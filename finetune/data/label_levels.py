"""Label names with levels → whether they are paths."""

from collections.abc import Sequence

from finetune.config.schema import Data
from finetune.runtime.errors import InputError, shorten


def check_levels(labels: Sequence[str], data: Data) -> None:
    """
    Raises:
        InputError: where the separator is in no label, or a level of one has no name.
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
