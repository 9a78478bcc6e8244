"""What a machine and its container say of their memory."""

import torch

from finetune.runtime import available_memory
from finetune.runtime.available_memory import available_device_memory
from finetune.runtime.available_memory import available_memory as available


def written(folder, texts):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_narrower_of_machine_and_container(tmp_path):
    machine = tmp_path / "meminfo"
    machine.write_text("MemTotal:  9000 kB\nMemAvailable:  4000 kB\nHugePages_Total:  0\n")
    assert available(machine, tmp_path / "none") == 4000 * 1024
    stat = "anon 2000000\ninactive_file 500000\n"
    two = written(
        tmp_path / "two",
        {"memory.max": "3000000\n", "memory.current": "2500000\n", "memory.stat": stat},
    )
    assert available(machine, two) == 1_000_000
    (two / "memory.max").write_text("max\n")
    assert available(machine, two) == 4000 * 1024
    one = written(
        tmp_path / "one",
        {
            "memory/memory.limit_in_bytes": "3000000\n",
            "memory/memory.usage_in_bytes": "2500000\n",
            "memory/memory.stat": "total_inactive_file 100\n",
        },
    )
    assert available(machine, one) == 500_100


def test_a_system_that_does_not_tell(tmp_path):
    assert available(tmp_path / "none", tmp_path / "none") is None
    (tmp_path / "other").write_text("no numbers here\n")
    assert available(tmp_path / "other", tmp_path / "none") is None


def test_a_device_keeps_what_training_took_at_its_peak(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (300, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 600)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 550)
    assert available_device_memory(torch.device("cuda")) == 350
    assert available_memory.MACHINE.name == "meminfo"
