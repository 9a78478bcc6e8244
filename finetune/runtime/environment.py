"""Versions of the libraries that decide a run's numbers, and the machine they ran on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "numpy", "transformers", "accelerate", "datasets", "evaluate", "tokenizers")


def library_versions() -> dict[str, str]:
    """Of Python and the libraries that decide a run's numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
