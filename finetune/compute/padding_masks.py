"""transformers' attention masks, made without asking a device whether a batch has padding.

    keep_padding_masks()

Where no token of a batch is padding, transformers leaves its mask out, and asks each mask for that:
the host waits for the device at every batch. Rows of a batch differ in length nearly always, so
here every mask is taken for one with padding. The attention is the same.
"""

from typing import Any

import transformers.masking_utils as masks

QUESTION = "_ignore_bidirectional_mask_sdpa"  # older releases of transformers have none to replace


def keep_padding_masks() -> None:
    """Have this process keep masks as they come, from now on."""
    ask: Any = getattr(masks, QUESTION, None)
    if ask is None or getattr(ask, "keeps_masks", False):
        return

    def is_left_out(padding_mask: Any, *given: Any, **named: Any) -> bool:
        return padding_mask is None and bool(ask(None, *given, **named))

    is_left_out.keeps_masks = True  # type: ignore[attr-defined]
    setattr(masks, QUESTION, is_left_out)
