"""A process that is the caller's is given back as it was."""

import csv
import os
import random
import weakref

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from finetune.runtime import console, process_state
from finetune.runtime.process_state import call_at_end, preserved_process


def test_random_numbers_go_on_as_if_nothing_had_been(monkeypatch):
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw(), draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = draw()
    with preserved_process():
        random.seed(5), np.random.seed(5), torch.manual_seed(5)
        draw()
    assert (first, draw()) == expected


def test_a_run_computes_as_in_a_process_of_its_own():
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), preserved_process():
            weight = torch.ones(1, requires_grad=True)
            assert weight.dtype == torch.float32
            (2 * weight).sum().backward()
            assert weight.grad.item() == 2
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_accelerate_begins_anew_and_the_callers_state_comes_back():
    mine = Accelerator(mixed_precision="no")
    with preserved_process():
        assert AcceleratorState._shared_state == {}
        assert Accelerator(mixed_precision="bf16").mixed_precision == "bf16"
    assert mine.mixed_precision == "no"
    assert AcceleratorState().mixed_precision == "no"


def test_what_an_exception_names_is_let_go_all_the_same():
    class Held:
        pass

    gone = []

    def run():
        held = Held()
        gone.append(weakref.ref(held))
        call_at_end(lambda: gone.append("released"))
        raise ValueError("of the run")

    with pytest.raises(ValueError, match="of the run") as told, preserved_process():
        run()
    assert told.value.__traceback__ is not None
    assert gone[0]() is None
    assert gone[1] == "released"
    call_at_end(lambda: gone.append("never"))  # outside: the process's end does it
    assert process_state._blocks == []
    assert "never" not in gone


def test_causes_that_run_in_a_circle_end():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__context__ = second, first
    with pytest.raises(ValueError, match="first"), preserved_process():
        raise first


def test_the_exception_that_the_caller_handles_keeps_its_frames():
    def fail():
        kept = "of the caller"
        raise KeyError(kept)

    def run():
        with preserved_process():
            raise ValueError("of the run")

    try:
        fail()
    except KeyError:
        with pytest.raises(ValueError, match="of the run") as told:
            run()
    mine = told.value.__context__
    assert isinstance(mine, KeyError)
    assert mine.__traceback__.tb_next.tb_frame.f_locals == {"kept": "of the caller"}


def test_variables_settings_and_the_console_are_restored(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    before = dict(os.environ), torch.get_num_threads(), dict(vars(console.CONSOLE))
    longest = csv.field_size_limit()
    with preserved_process():
        csv.field_size_limit(2**31 - 1)
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        os.environ["ACCELERATE_USE_CPU"] = "false"
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("high")
        console.CONSOLE.verbosity = console.Verbosity.SILENT
        console.quiet_libraries()
    assert (dict(os.environ), torch.get_num_threads(), dict(vars(console.CONSOLE))) == before
    assert torch.get_float32_matmul_precision() == "highest"
    assert csv.field_size_limit() == longest


def test_a_deterministic_run_leaves_the_caller_s_process_as_it_was(monkeypatch):
    names = "CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC"
    monkeypatch.setenv(names[0], ":16:8")
    monkeypatch.delenv(names[1], raising=False)
    with preserved_process():
        torch.use_deterministic_algorithms(True)
        for name in names:
            os.environ[name] = "1"
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ[names[0]] == ":16:8"
    assert names[1] not in os.environ
