"""One step of a sharded model, as JSON: its gradients, beside those of a model that is not sharded.

    found = sharded_step(encoder, precision="bf16")     # by two processes

Where a rank is to run out of memory, it does so once, in the given micro-batch of the step.
"""

import copy
import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

ROWS, BUDGET = 24, 96


def sharded_step(encoder, **asked):
    """What two processes find."""
    from tests.support import forks

    config = Path(__file__).parents[2] / "recipes" / "accelerate" / "fsdp2.yaml"
    done = forks.run_ranks(
        2, "tests.support.sharded_step", str(encoder), json.dumps(asked), cwd=encoder, timeout=120,
        options=("--config_file", str(config)),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Compute the step, and have the main process print what was found."""
    from finetune.compute import fsdp, micro_batch_size
    from finetune.compute.accelerator import prepare_training, start_accelerator
    from finetune.config import schema
    from finetune.modeling import build
    from finetune.runtime import distributed
    from finetune.training import loop, step_memory
    from finetune.training.objective import StepTask
    from finetune.training.optimizer import build_optimizer
    from finetune.training.train_log import TrainLog
    from finetune.training.train_state import whole
    from tests.support.pretended_device import table_of

    encoder, asked = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(1)
    precision = asked["precision"]
    recipe = schema.Recipe(
        data=schema.Data(source="x"),
        model=schema.Model(
            source=encoder, freeze=asked.get("freeze", "none"), head_init="normal", dropout=0.0
        ),
        train=schema.Train(
            precision="fp32" if precision == "fp16" else precision, threads=1, packing="off"
        ),
        optim=schema.Optim(lr=1.0, momentum=0.0, head_lr_scale=1.0),
    )
    plan, accelerator = start_accelerator(recipe)
    assert accelerator.num_processes == 2
    if precision == "fp16":  # which the plan refuses on a CPU, for it is slow
        accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu")
        accelerator.state._mixed_precision = "fp16"
    model = build.build_classifier(encoder, recipe.model, ["a", "b", "c"], "sdpa", seed=0)
    bare = copy.deepcopy(model)
    draw = np.random.default_rng(0)
    table, labels = table_of(draw.integers(4, 30, ROWS), draw, False), draw.integers(0, 3, ROWS)
    fsdp.shard_model(accelerator, model)
    prepared, optimizer = prepare_training(accelerator, model, build_optimizer(model, recipe.optim))
    prepared.train()
    types, units = note_types(model), unit_names(model)
    if "fails" in asked:
        run_out(model, accelerator.process_index, **asked["fails"])
    if asked.get("fit"):
        plan = dataclasses.replace(plan, device="cuda", micro_batch_tokens=BUDGET)
        fitted = micro_batch_size.fit_micro_batches(
            plan, prepared, optimizer, table, accelerator, recipe.train
        ).micro_batch_tokens
        print(json.dumps(fitted)) if accelerator.is_main_process else None
        return distributed.exit_process(0)
    told = []
    memory = step_memory.StepMemory(
        asked.get("budget", BUDGET), prepared, recipe.train, accelerator,
        lambda *how: told.append(how),
    )  # fmt: skip
    targets = torch.from_numpy(labels)

    def losses_of(logits, part):
        return torch.nn.functional.cross_entropy(logits, targets[part], reduction="none")

    torch.manual_seed(accelerator.process_index)
    losses = memory.compute(1, partial(
        loop.add_gradients, prepared, StepTask(table, np.arange(ROWS), losses_of), accelerator,
        TrainLog(accelerator, None),
    ))  # fmt: skip
    if accelerator.process_index == asked.get("overflows"):  # in this process's part alone
        model.classifier.weight.grad.to_local().fill_(torch.inf)
    accelerator.unscale_gradients(optimizer)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sharded = {name: whole(p.grad) for name, p in learning.items()}
    before = {name: whole(p) for name, p in learning.items()}
    optimizer.step()
    moved = {name: float((before[name] - whole(p)).abs().sum()) for name, p in learning.items()}
    expected = whole_gradients(bare, table, targets, accelerator)
    apart = {
        name: float((sharded[name] - expected[name]).norm() / expected[name].norm().clamp(min=1e-3))
        for name in expected
    }
    if accelerator.is_main_process:
        sums = {name: float(value.double().sum()) for name, value in sharded.items()}
        found = {"told": told, "parts": len(losses), "apart": apart, "sums": sums, "moved": moved}
        print(json.dumps(found | {"types": types, "units": units}))
    return distributed.exit_process(0)


def note_types(model):
    """Which type the weights have while they are used, by the part of the model."""
    types = {}

    def look(name, module, given):
        types[name] = str(module.weight.dtype)

    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            module.register_forward_pre_hook(partial(look, name))
    return types


def unit_names(model):
    """What is put together by itself."""
    from torch.distributed.fsdp import FSDPModule

    return [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]


def run_out(model, here, rank, where, part):
    """Have a rank run out of memory once, in the middle of a forward or backward pass."""
    seen = []

    def fail(*given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def look(module, given, output):
        seen.append(1)
        if here == rank and len(seen) == part:
            if where == "forward":
                fail()
            output.register_hook(fail)

    model.encoder.encoder.layer[0].output.dense.register_forward_hook(look)


def whole_gradients(model, table, targets, accelerator):
    """Of the mean loss of all rows, in one batch of a model that is not sharded."""
    model.eval()
    with accelerator.autocast():
        logits = model(**table.batch(np.arange(ROWS), accelerator.device)).logits.float()
    torch.nn.functional.cross_entropy(logits, targets).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


if __name__ == "__main__":
    sys.exit(main())
