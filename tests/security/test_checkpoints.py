"""A checkpoint that was changed by hand, its checksums too: refused by name, and not put back.

Its folder is trusted as little as any file: what decides the steps to come is compared with the
model and optimizer at hand.
"""

import json

import pytest
import torch
from accelerate import Accelerator

from finetune.runtime.errors import InputError
from finetune.training import checkpoint, checkpoint_model, state_check, train_state
from finetune.training.train_log import TrainLog
from tests.support.checkpoint_values import plain_values


def trained(optimizer_class, **options):
    """A model after a step, its optimizer and its captured state."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = optimizer_class(model.parameters(), lr=0.1, **options)
    log = TrainLog(accelerator, max_norm=1.0)
    losses = model(torch.randn(4, 3)).square().sum(dim=1)
    losses.mean().backward()
    log.add(losses)
    log.end_step(torch.tensor(0.5), rows=4, tokens=12)
    optimizer.step()
    names = train_state.trained_names(model, accelerator)
    with log.paused():
        tensors, plain = train_state.capture(model, optimizer, log, accelerator, names)
    tensors = {name: value.clone() for name, value in tensors.items()}

    def restore(changed, **more):
        train_state.restore(model, optimizer, log, accelerator, names, changed, plain | more)

    return model, tensors, restore


ADAMW = {"optimizer_class": torch.optim.AdamW}
SGD = {"optimizer_class": torch.optim.SGD, "momentum": 0.9}
BROADCAST = "run.resume: the checkpoint's tensors are not those of this model and optimizer: "


@pytest.mark.parametrize(
    ("options", "name", "value", "problem"),
    [
        (SGD, "model/weight", torch.ones(1, 3), "is float32 (1, 3), expected float32 (2, 3)"),
        (SGD, "model/weight", torch.ones(3), "is float32 (3,), expected float32 (2, 3)"),
        (SGD, "model/bias", torch.tensor(1.0), "is float32 (), expected float32 (2,)"),
        (SGD, "model/weight", torch.ones(2, 3).half(), "is float16 (2, 3), expected float32 "),
        (SGD, "model/weight", torch.ones(2, 3).long(), "is int64 (2, 3), expected float32 (2, 3)"),
        (SGD, "model/bias", torch.tensor([1.0, torch.nan]), "has values that are not finite"),
        (SGD, "model/bias", None, "is missing"),
        (SGD, "model/other", torch.ones(2), "is unknown"),
        (SGD, "other", torch.ones(2), "is unknown"),
        (SGD, "optimizer/weight/momentum_buffer", torch.ones(1, 3), "is float32 (1, 3), expected"),
        (SGD, "optimizer/weight/exp_avg", torch.ones(2, 3), "is unknown"),
        (SGD, "optimizer/weight/momentum_buffer", None, "is missing"),
        (ADAMW, "optimizer/weight/exp_avg_sq", torch.ones(1, 1), "is float32 (1, 1), expected"),
        (ADAMW, "optimizer/weight/exp_avg_sq", None, "is missing"),
        (ADAMW, "optimizer/weight/exp_avg", torch.full((2, 3), torch.inf), "that are not finite"),
        (ADAMW, "optimizer/bias/step", torch.ones(2), "is float32 (2,), expected float32 ()"),
        (ADAMW, "optimizer/head/exp_avg", torch.ones(2), "is unknown"),
        (ADAMW, "process/0/torch", torch.zeros(3, dtype=torch.uint8), "has 3 bytes, expected 5,0"),
        (ADAMW, "process/0/sums", torch.zeros(1), "is float32 (1,), expected two floating-point"),
        (ADAMW, "process/0/norms", torch.zeros(1, 1), "expected one dimension of floating-point"),
        (ADAMW, "process/0/sums", None, "is missing"),
        (ADAMW, "process/7/sums", torch.zeros(2), "is unknown"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_and_nothing_is_changed(options, name, value, problem):
    model, tensors, restore = trained(**options)
    before = model.weight.detach().clone()
    listed = sorted(tensors)
    tensors.pop(name, None)
    if value is not None:
        tensors[name] = value
    with pytest.raises(InputError) as refused:
        restore(tensors, tensors=listed)
    [said] = refused.value.problems
    assert said.startswith(f"{BROADCAST}{name} ")
    assert problem in said
    assert torch.equal(model.weight, before)


def test_every_optimizer_says_what_it_keeps():
    assert {ADAMW["optimizer_class"], SGD["optimizer_class"]} == state_check.SLOTS.keys()


def test_what_runs_write_is_what_is_read():
    written = {"format": checkpoint.FORMAT, "tensors": []} | plain_values()
    assert written.keys() == checkpoint_model.PlainValues.model_fields.keys()


def test_all_that_is_wrong_is_named_at_once():
    _, tensors, restore = trained(**ADAMW)
    del tensors["model/bias"], tensors["optimizer/weight/step"]
    with pytest.raises(InputError, match="model/bias is missing, optimizer/weight/step is missing"):
        restore(tensors)


def test_all_that_an_optimizer_keeps_of_a_parameter_is_missed():
    """Without a list of names it would look like a parameter that was never updated."""
    _, tensors, restore = trained(**ADAMW)
    listed = sorted(tensors)
    for slot in ("step", "exp_avg", "exp_avg_sq"):
        del tensors[f"optimizer/weight/{slot}"]
    restore(tensors)  # as an older release wrote it
    with pytest.raises(InputError, match="optimizer/weight/exp_avg is missing"):
        restore(tensors, tensors=listed)


def test_an_unchanged_state_is_put_back():
    for options in (ADAMW, SGD):
        model, tensors, restore = trained(**options)
        restore(tensors, tensors=sorted(tensors))
        assert torch.equal(model.weight, tensors["model/weight"])


def test_weights_of_another_shape_do_not_reach_a_model():
    model = torch.nn.Linear(3, 2)
    with pytest.raises(InputError, match=r"weight is float32 \(1, 3\), expected float32 \(2, 3\)"):
        train_state.load_weights(
            model, {"weight": torch.ones(1, 3)}, Accelerator(cpu=True), partly=True
        )


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("state.waited", "1", "state.waited: input should be a valid integer"),
        ("state.trained", "weight", "state.trained: input should be a valid array"),
        ("state.rate_scale", -1.0, "state.rate_scale: input should be greater than 0"),
        ("state.__class__", "x", "state.__class__: extra inputs are not permitted"),
        ("log.steps", -3, "log.steps: input should be greater than or equal to 0"),
        ("log.seconds", None, "log.seconds: input should be a valid number"),
        ("num_processes", 0, "num_processes: input should be greater than or equal to 1"),
        ("metrics_bytes", "many", "metrics_bytes: input should be a valid integer"),
        ("processes", [], "processes: list should have at least 1 item"),
        ("processes.0.python", [3, ["x"], None], "processes.0.python.1.0: input should be a valid"),
        ("identity", [], "identity: input should be an object"),
        ("identity.data", {}, "identity.data.labels: field required"),
        ("sharded", 1, "sharded: input should be a valid boolean"),
    ],
)
def test_a_plain_value_of_another_type_is_named(tmp_path, path, value, problem):
    plain = json.loads(json.dumps(plain_values()))
    *parents, last = [int(word) if word.isdigit() else word for word in path.split(".")]
    place = plain
    for word in parents:
        place = place[word]
    place[last] = value
    point = checkpoint.write_checkpoint(tmp_path, 4, {"model/w": torch.ones(2)}, plain)
    with pytest.raises(InputError) as refused:
        checkpoint.verify_checkpoint(point)
    [said] = refused.value.problems
    assert said.startswith(f"checkpoint {point}: state.json: {problem}")


def test_plain_values_that_are_no_object(tmp_path):
    point = checkpoint.write_checkpoint(tmp_path, 4, {"model/w": torch.ones(2)}, plain_values())
    for text in ("[]", "{", "[" * 100_000, "5"):
        (point / checkpoint.PLAIN).write_text(text)
        with pytest.raises(InputError, match=r"state.json( is not valid JSON|: expected a JSON o)"):
            checkpoint.read_plain(point)
