"""A model and some rows of a token table → their logits. Needs torch alone."""

import torch

from finetune.tokenization.token_table import Rows, TokenTable


def forward_rows(
    model: torch.nn.Module, table: TokenTable, rows: Rows, device: torch.device
) -> torch.Tensor:
    """The logits of some rows. (rows, classes) float32"""
    return table.pooled(model(**table.batch(rows, device)).logits.float(), rows)
