"""A disk that fills, a process that dies, two machines: nothing is lost, and all is said once."""

import os
import resource
import signal
import socket
import subprocess
import time

import pytest
from safetensors.torch import load_file

from tests.processes import ENVIRONMENT, RUN, launch
from tests.runs import (
    assert_same,
    checkpoints,
    finish,
    results,
    run_here,
    start,
    stopped_at,
    wait_for_loss,
)


def small_files(size):
    """No file may grow beyond `size` bytes: a disk that fills, for one process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_disk_that_fills_during_a_checkpoint(here, whole):
    folder = stopped_at(whole, here / "run", 8)
    before = checkpoints(folder)
    # Room for the model, and not for a checkpoint, which also holds the optimizer's memory.
    model = (whole / "model" / "model.safetensors").stat().st_size
    point = (whole / "checkpoints" / "step-00000008" / "state.safetensors").stat().st_size
    assert model < point
    process = start(
        here, "run.resume=run", "checkpoint.keep=99",
        preexec_fn=lambda: small_files((model + point) // 2),
    )  # fmt: skip
    said = process.stdout.read()
    assert process.wait() == 2, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert "step-00000010: cannot write: " in errors[0]
    assert "Traceback" not in said
    assert checkpoints(folder) == before
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_became_read_only(here, whole, capsys):
    folder = stopped_at(whole, here / "run", 8)
    (folder / "checkpoints").chmod(0o555)
    run_here("run.resume=run", code=2)
    assert "permission denied" in capsys.readouterr().err
    (folder / "checkpoints").chmod(0o755)
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, folder)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_others(here, whole_by_two, rank):
    process = start(here, "run.dir=run", "checkpoint.keep=99", launcher=launch(2))
    wait_for_loss(process)
    os.kill(process_of(rank, process.pid), signal.SIGKILL)
    killed = time.monotonic()
    rest = process.stdout.read()
    assert process.wait() != 0, rest
    assert time.monotonic() - killed < 60
    assert rest.count("another process of this run ended without a word") == 1, rest
    assert "[rank" not in rest  # no process has a traceback
    finish(here, "run.resume=run", "checkpoint.keep=99", launcher=launch(2))
    assert_same(whole_by_two, here / "run")


def process_of(rank, launcher):
    """The process of a rank among a launcher's children, by its environment."""
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(launcher)], capture_output=True, text=True, check=True
    ).stdout.split()
    for child in children:
        with open(f"/proc/{child}/environ", "rb") as file:  # noqa: PTH123 # one line
            if f"RANK={rank}".encode() in file.read().split(b"\0"):
                return int(child)
    raise AssertionError(f"no process of rank {rank} among {children}")


def test_an_error_of_one_process_is_told_once(here):
    """One of two cannot find its encoder, as where a machine lacks a disk."""
    code = (
        "import os, sys; from finetune import model, run; build = model.build\n"
        "def broken(*arguments, **more):\n"
        "    if os.environ['RANK'] == '1': raise RuntimeError('this machine lacks a disk')\n"
        "    return build(*arguments, **more)\n"
        "model.build = broken; sys.exit(run.main(sys.argv[1:]))\n"
    )
    (here / "broken.py").write_text(code)
    began = time.monotonic()
    done = subprocess.run(
        [*launch(2), "broken.py", "tiny.yaml", "run.dir=run"],
        cwd=here, env=ENVIRONMENT | {"PYTHONPATH": str(os.path.dirname(os.path.dirname(RUN)))},  # noqa: PTH120
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0
    assert time.monotonic() - began < 90
    assert done.stderr.count("RuntimeError: this machine lacks a disk") == 1, done.stderr
    assert "ended without a word" not in done.stderr


def test_two_launchers_are_one_run(here):
    """As on two machines, which share the folder: the weights of one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = "model.dropout=0", "train.epochs=1"
    machines = [
        start(
            here, *words, "run.dir=two",
            launcher=launch(
                2, "--num_machines", "2", "--machine_rank", str(rank),
                "--main_process_ip", "127.0.0.1", "--main_process_port", str(port),
            ),
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert results(here / "two")["num_processes"] == 2
    run_here("run.dir=one", *words)
    one, two = (load_file(here / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        scale = value.abs().max().clamp(min=1e-3)
        assert (two[name] - value).abs().max() <= 1e-5 * scale, name
