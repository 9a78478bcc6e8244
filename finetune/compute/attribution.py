"""A model and a weighted sum of its logits → how much each token contributed to that sum.

    scores = attribute_tokens(model, table, is_text, weights, baseline, device)     # (tokens,)

Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) over the input embeddings, along
the line from a document of which every token of text is `baseline` to the document itself. The
scores of a document's tokens sum to the difference between both, up to the error of the quadrature.
"""

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from finetune.compute.micro_batches import micro_batches
from finetune.tokenization.token_table import TokenTable

POINTS = 4  # of the quadrature: scripts/studies/explanation_study.py found no more use in more
TOKENS = 2048  # computed at once


def attribute_tokens(
    model: nn.Module,
    table: TokenTable,
    is_text: NDArray[np.bool_],
    weights: NDArray[np.float64],
    baseline: int,
    device: torch.device,
    points: int = POINTS,
) -> NDArray[np.float64]:
    """The score of each token of a table, special ones 0. (tokens,)

    Args:
        model: with weights in fp32, in eval mode; its parameters are left as they are.
        table: a row for each piece (`by_piece`).
        is_text: whether each token of the table is one of the text. (tokens,)
        weights: of each piece's logits in the sum; all 0: the piece is left out, with scores of 0.
            (pieces, classes)
        baseline: the id of the token that says nothing.
        points: where on the line the gradient is taken (Gauss and Legendre's).
    """
    places, shares = np.polynomial.legendre.leggauss(points)
    places, shares = (places + 1) / 2, shares / 2
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    nothing = embedding(torch.tensor([baseline], device=device)).detach()  # (1, hidden)
    scores = np.zeros(len(table.ids))
    wanted = np.flatnonzero(np.repeat(weights.any(axis=1), points))
    for chosen in micro_batches(wanted, np.repeat(table.lengths, points), TOKENS):
        pieces, at = np.divmod(chosen, points)
        batch = table.batch(pieces, device)
        text, where = _find_text(table, pieces, is_text, batch["input_ids"].shape[1])
        line = _Line(
            torch.from_numpy(text).to(device), torch.from_numpy(places[at]).to(device), nothing
        )
        hook = embedding.register_forward_hook(line)
        try:
            with torch.enable_grad():
                logits = model(**batch).logits.float()
                summed = (logits * torch.from_numpy(weights[pieces]).to(logits)).sum()
                (slope,) = torch.autograd.grad(summed, line.point)
        finally:
            hook.remove()
        found = (slope * line.way).sum(dim=-1).cpu().numpy() * shares[at][:, None]
        np.add.at(scores, where[text], found[text])
    return scores


class _Line:
    """Puts other embeddings in the place of an embedding layer's output: those of a point on the
    way from a baseline. What other threads compute with the layer meanwhile stays as it is.

    Attributes:
        point: the embeddings there, as a leaf. (rows, tokens, hidden)
        way: from the baseline to the tokens' own. (rows, tokens, hidden)
    """

    def __init__(self, is_text: Tensor, share: Tensor, baseline: Tensor) -> None:
        self._is_text, self._share, self._baseline = is_text, share, baseline
        self.point: Tensor = baseline
        self.way: Tensor = baseline
        self._thread = threading.get_ident()

    def __call__(self, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if threading.get_ident() != self._thread:
            return None
        own = output.detach()
        self.way = (own - self._baseline) * self._is_text.unsqueeze(-1)
        share = self._share.to(own.dtype).view(-1, 1, 1)
        self.point = (own - share * self.way).requires_grad_()
        return self.point


def _find_text(
    table: TokenTable, pieces: NDArray[np.int64], is_text: NDArray[np.bool_], width: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which places of a batch hold the text's tokens, and which of the table's tokens those are.
    (pieces, width)"""
    where = table.starts[pieces][:, None] + np.arange(width)
    inside = where < table.starts[pieces + 1][:, None]
    where = np.where(inside, where, 0)
    return inside & is_text[where], where


def baseline_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that says nothing: the mask's, else padding's."""
    known = (tokenizer.mask_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    return next((token for token in known if isinstance(token, int)), 0)
