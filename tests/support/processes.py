"""How the tests start runs as a user does: real processes on the CPU."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = str(ROOT / "finetune" / "run.py")
AT_STEP = str(ROOT / "tests" / "support" / "at_step.py")
ENVIRONMENT = os.environ | {
    "ACCELERATE_USE_CPU": "true",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def launch(processes: int = 1, *more: str) -> list[str]:
    """`accelerate launch` for so many CPU processes; `--cpu --num_processes 2` would run one."""
    start = [sys.executable, "-m", "accelerate.commands.launch"]
    if processes == 1 and not more:
        return start
    return [
        *start,
        *["--multi_gpu", "--num_processes", str(processes), "--mixed_precision", "no"],
        *["--dynamo_backend", "no"],
        *(more or ["--num_machines", "1", "--main_process_port", "0"]),
    ]
