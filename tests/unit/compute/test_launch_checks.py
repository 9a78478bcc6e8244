"""Launches that a run cannot be shared by are refused, with the way to start it."""

from types import SimpleNamespace

import pytest
from accelerate import DistributedType

from finetune.compute import launch_checks
from finetune.runtime.errors import InputError


def test_processes_that_did_not_find_each_other(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    launch_checks.check_processes_joined(SimpleNamespace(num_processes=2))
    with pytest.raises(InputError, match=r"2 processes were started.*ACCELERATE_USE_CPU=true"):
        launch_checks.check_processes_joined(SimpleNamespace(num_processes=1))


@pytest.mark.parametrize("kind", [DistributedType.NO, DistributedType.MULTI_GPU])
def test_one_process_and_data_parallel_ones_are_supported(kind):
    accelerator = SimpleNamespace(distributed_type=kind, is_fsdp2=False)
    launch_checks.check_distribution_supported(accelerator)


def test_of_fsdp_only_the_second_version_is_supported():
    accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP, is_fsdp2=True)
    launch_checks.check_distribution_supported(accelerator)
    accelerator.is_fsdp2 = False
    with pytest.raises(InputError, match="or FSDP2, got FSDP"):
        launch_checks.check_distribution_supported(accelerator)
