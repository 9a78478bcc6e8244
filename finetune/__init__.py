"""Fine-tune a pretrained encoder into a document classifier, one readable step at a time.

`finetune/run.py` tells the whole story in order; each module's docstring says what comes in and
what goes out. Importing this package is cheap: nothing heavy loads before it is needed.
"""

__version__ = "0.1.0"
