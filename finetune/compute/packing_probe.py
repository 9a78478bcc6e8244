"""Whether a model computes of packed rows what it computes of padded ones: tried on a few rows.

    probe = Probe(model, learns=True)     # computes the rows padded
    probe.is_passed_by(packed.table)      # computes them packed

A class may ignore what it is told of rows, count positions in a way of its own, or have a gradient
that packing does not reach. So both what the head reads and the gradient of each weight are
compared, in fp32 whatever the run's precision, for rounding to 16 bits would hide much.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from finetune.compute.frozen_prefix import attention_of_cpus
from finetune.modeling import pretrained
from finetune.modeling.head import find_head, record_inputs
from finetune.tokenization.token_table import TokenTable, range_starts

LENGTHS = (3, 20, 7, 5)  # tokens of the rows; one more is longer than what the class sees at once
TOLERANCE = 1e-5  # of the largest number
LOW_TOLERANCE = 0.02  # in bf16 or fp16
Prepare = Callable[[TokenTable], TokenTable]


@dataclass(frozen=True)
class Outcome:
    """What a model computes of the rows.

    Attributes:
        vectors: what the head reads. (rows, hidden)
        gradients: of each weight that learns, of one sum of the vectors' numbers; None: it has no
            part in them.
    """

    vectors: Tensor
    gradients: tuple[Tensor | None, ...] = ()


class Probe:
    """What a model makes of a few padded rows, to which other layouts are compared.

    Args:
        model: on its device.
        learns: whether it is trained, so that its gradient is compared too.
    """

    def __init__(self, model: PreTrainedModel, learns: bool) -> None:
        self.model, self.rows = model, _rows(model)
        self.learning = [p for p in model.parameters() if p.requires_grad] if learns else []
        self.expected = self._run(self.rows, bool(self.learning))

    def is_passed_by(self, prepare: Prepare) -> bool:
        """Whether rows that are laid out so differ from padded ones by rounding alone.

        Scored without a gradient and, where the model learns, with one: the two differ in code.
        """
        try:
            table = prepare(self.rows)
            scored = self._run(table, False)
            if not _is_near([scored.vectors], [self.expected.vectors], TOLERANCE):
                return False
            return not self.learning or _is_same(self._run(table, True), self.expected)
        except Exception:  # whatever a class does with what it did not expect
            return False

    def is_passed_in(self, low: torch.dtype, prepare: Prepare) -> bool:
        """Whether rows that are laid out so are, in 16 bits, as near to fp32 as these allow."""
        try:
            found = self._run(prepare(self.rows), False, low)
        except Exception:  # another GPU, another release
            return False
        return _is_near([found.vectors], [self.expected.vectors], LOW_TOLERANCE)

    def _run(self, table: TokenTable, learns: bool, low: torch.dtype | None = None) -> Outcome:
        """What the model computes without dropout, its products in `low` or in exact fp32."""
        batch = table.batch(np.argsort(-table.lengths, kind="stable"), self.model.device)
        device, head = self.model.device.type, find_head(self.model)
        # Others than CPUs' attention have no fp32. What scoring has set may hold no gradient.
        with (
            _exact_products() if low is None else nullcontext(),
            _evaluating(self.model),
            attention_of_cpus(self.model.base_model.config),
            torch.inference_mode(False),
            torch.set_grad_enabled(learns),
        ):
            with torch.autocast(device, low, enabled=low is not None), record_inputs(head) as read:
                self.model(**batch)
            [vectors] = read
            return Outcome(vectors.detach().float(), self._gradients(vectors.float()))

    def _gradients(self, vectors: Tensor) -> tuple[Tensor | None, ...]:
        if not vectors.requires_grad:
            return ()
        draw = torch.Generator().manual_seed(0)
        weights = torch.randn(vectors.shape, generator=draw).to(vectors.device)
        total = (vectors * weights).sum()
        return torch.autograd.grad(total, self.learning, allow_unused=True)


def _is_same(found: Outcome, expected: Outcome) -> bool:
    if not _is_near([found.vectors], [expected.vectors], TOLERANCE):
        return False
    pairs = list(zip(found.gradients, expected.gradients, strict=True))
    if any((one is None) != (other is None) for one, other in pairs):
        return False
    there = [(one, other) for one, other in pairs if one is not None and other is not None]
    return _is_near([one for one, _ in there], [other for _, other in there], TOLERANCE)


def _is_near(found: list[Tensor], expected: list[Tensor], tolerance: float) -> bool:
    """Each tensor by its own largest number; what is far below all others' is rounding."""
    if any(one.shape != other.shape for one, other in zip(found, expected, strict=True)):
        return False
    sizes = [float(one.abs().max()) for one in expected]
    least = max(sizes, default=0.0) / 10
    return all(
        bool(((one - other).abs() <= tolerance * max(size, least)).all())
        for one, other, size in zip(found, expected, sizes, strict=True)
    )


def _rows(model: PreTrainedModel) -> TokenTable:
    """A few short rows, and one longer than what a layer sees, or tells apart, at once."""
    config: Any = model.base_model.config
    told_apart = max(getattr(config, "position_buckets", 0), 0) // 2  # distances, by DeBERTa
    limit = pretrained.max_positions(config) or 2**20
    lengths = np.array([*LENGTHS, max(_seen_at_once(config), told_apart) + 9]).clip(max=limit)
    pad = getattr(config, "pad_token_id", None) or 0
    known = np.arange(min(12, config.vocab_size))
    known = known[known != pad]
    ids = np.resize(known, lengths.sum()).astype(np.int32)
    return TokenTable(ids, range_starts(lengths), lengths, pad)


def _seen_at_once(config: Any) -> int:
    """Tokens that a layer sees at most; 0: all. Configs have many names for that, and -1 for all.

    `sliding_window`, `attention_window` of each layer, `local_attention` of ModernBERT.
    """
    found = [getattr(config, "sliding_window", None) or 0]
    for name, value in vars(config).items():
        if "window" in name or name == "local_attention":
            found += value if isinstance(value, list | tuple) else [value]
    return max(size for size in found if isinstance(size, int))


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _exact_products() -> Iterator[None]:
    """While it is entered, no GPU multiplies fp32 with fewer bits (TF32)."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
