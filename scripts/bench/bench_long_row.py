"""One long row, forward and backward, each layer computed again for its gradient: memory and time.

    python scripts/bench/bench_long_row.py ENCODER --tokens 8192

The row's ids are random; the encoder is trained but for its embeddings, in the precision that this
machine's plan has. `--kept` keeps freed memory as a run without checkpointing does.
"""

import argparse
import time
from typing import Any

import bench_shown as shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder", help="a folder, or package:…")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--kept", action="store_true", help="keep all freed memory")
    measure(parser.parse_args())


def measure(known: argparse.Namespace) -> None:
    """Compute the row once, and print what it took."""
    import numpy as np
    import torch

    from finetune.compute import checkpointing, hardware_plan, packing
    from finetune.config import schema
    from finetune.modeling import build
    from finetune.tokenization.token_table import TokenTable, range_starts

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    choices = schema.Model(source=known.encoder, freeze="embeddings")
    plan = hardware_plan.plan_hardware(choices, schema.Train())
    hardware_plan.apply_plan(plan)
    model = build.build_classifier(known.encoder, choices, ["a", "b"], plan.attention, seed=0)
    packed = packing.attach_packing(model, plan.precision)
    checkpointing.enable_checkpointing(model)
    if known.kept:
        hardware_plan.apply_plan(plan)
    model.train()
    lengths = np.array([known.tokens])
    encoder: Any = model.base_model
    draw = np.random.default_rng(0)
    ids = draw.integers(5, encoder.config.vocab_size, known.tokens, dtype=np.int32)
    table = packed.table(TokenTable(ids, range_starts(lengths), lengths, 0))
    before = shown.peak_memory()
    began = time.perf_counter()
    with torch.autocast(plan.device, dtypes[plan.precision], enabled=plan.precision != "fp32"):
        logits = model(**table.batch(np.arange(1), torch.device(plan.device))).logits
    forward = time.perf_counter() - began
    logits.float().logsumexp(1).sum().backward()
    print(
        str(shown.machine()),
        f"{plan.precision}, {plan.threads} threads, rows {table.layout}",
        sep="\n",
    )
    print(f"{known.tokens:,} tokens: forward {forward:.0f} s, ", end="")
    print(f"backward {time.perf_counter() - began - forward:.0f} s")
    print(f"peak memory {shown.peak_memory():,.0f} MB; before the row {before:,.0f} MB")


if __name__ == "__main__":
    main()
