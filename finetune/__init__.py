"""Fine-tune a pretrained encoder into a document classifier, one readable step at a time.

    import finetune

    run = finetune.train(data=frame, text="body", label="queue")
    run.classifier(["Where is my parcel?"])

docs/python.md explains what is listed here. Importing this package is cheap: nothing heavy loads
before it is needed. `finetune/pipeline.py` tells the whole story of a run in order; each module's
docstring says what comes in and what goes out.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from finetune.runtime import name_clash

if TYPE_CHECKING:
    from finetune.api.comparison import compare
    from finetune.api.prediction import load, predict
    from finetune.api.run import Run
    from finetune.api.training import train
    from finetune.config.python_recipe import Recipe
    from finetune.inference.classifier import Classifier
    from finetune.runtime.errors import InputError, StoppedError

__version__ = "0.1.0"

name_clash.explain_missing_modules()

__all__ = [
    "Classifier",
    "InputError",
    "Recipe",
    "Run",
    "StoppedError",
    "__version__",
    "compare",
    "load",
    "predict",
    "train",
]

# Where each name comes from, once it is asked for.
_HOMES = {
    "Classifier": "finetune.inference.classifier",
    "InputError": "finetune.runtime.errors",
    "Recipe": "finetune.config.python_recipe",
    "Run": "finetune.api.run",
    "StoppedError": "finetune.runtime.errors",
    "compare": "finetune.api.comparison",
    "load": "finetune.api.prediction",
    "predict": "finetune.api.prediction",
    "train": "finetune.api.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(name_clash.explain_missing(name))
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
