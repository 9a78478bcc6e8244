"""transformers' attention masks, made without asking a device whether a batch has padding.

    with kept_padding_masks(device):
        model(**batch)

Where no token of a batch is padding, transformers leaves its mask out, and asks each mask for that:
the host waits for the device at every batch. Rows of a batch differ in length nearly always, so
here every mask is taken for one with padding. The attention is the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers.masking_utils as masks

QUESTION = "_ignore_bidirectional_mask_sdpa"  # older releases of transformers have none to replace


_ASK: Any = getattr(masks, QUESTION, None)


def _is_left_out(padding_mask: Any, *given: Any, **named: Any) -> bool:
    return padding_mask is None and bool(_ASK(None, *given, **named))


@contextmanager
def kept_padding_masks(device: str) -> Iterator[None]:
    """While it is entered, this process keeps masks as they come.

    Within another it does nothing, nor on a CPU, which has nothing to wait for.
    """
    before = getattr(masks, QUESTION, None)
    if device == "cpu" or before is None or before is _is_left_out:
        yield
        return
    setattr(masks, QUESTION, _is_left_out)  # one function for good: torch.compile looks at it
    try:
        yield
    finally:
        setattr(masks, QUESTION, before)
