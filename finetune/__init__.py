"""Fine-tune a pretrained encoder into a document classifier, one readable step at a time.

`finetune/run.py` tells the whole story in order; each module's docstring says what comes in and
what goes out. Importing this package is cheap: nothing heavy loads before it is needed.
"""

from finetune.runtime import name_clash

__version__ = "0.1.0"

name_clash.explain_missing_modules()


def __getattr__(name: str) -> object:
    raise AttributeError(name_clash.explain_missing(name))
