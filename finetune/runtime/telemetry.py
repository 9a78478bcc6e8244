"""What libraries would tell their makers → off, unless the user asked for it.

    turn_off()                                    # a command, before it imports any of them
    runtime = import_silently("onnxruntime")      # in a process that is the caller's

A library reads its variable as it is imported, or starts then already: ONNX Runtime writes an id of
the machine and looks up its maker's host from its import on, and its own function that turns that
off comes too late.
"""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

# A variable that the user has set, to whatever, stays as it is.
OFF = {
    "GRADIO_ANALYTICS_ENABLED": "False",  # and the look for a newer version
    "HF_HUB_DISABLE_TELEMETRY": "1",  # of transformers and datasets too
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # a request of datasets and evaluate for each loader
    "NNCF_CI": "1",  # the only word by which NNCF reports nothing
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",  # crash reports; what the user logs goes there all the same
}


def turn_off() -> Callable[[], None]:
    """Set each variable that is not set; removed again by what is returned."""
    added = [name for name in OFF if name not in os.environ]
    os.environ.update({name: OFF[name] for name in added})

    def restore() -> None:
        for name in added:
            os.environ.pop(name, None)

    return restore


def import_silently(module: str) -> Any:
    """Import a library that starts to report as it is imported; the environment stays as it was."""
    restore = turn_off()
    try:
        return import_module(module)
    finally:
        restore()
