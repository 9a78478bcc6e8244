"""Recipe → a fine-tuned, scored, saved document classifier.

accelerate launch finetune/run.py recipes/ag_news.yaml [section.key=value …] [--dry-run]

The same as `finetune train`, as a file that launchers take. The command line is `cli/train.py`, and
the story, in order, `pipeline.py`.
"""

import sys
from pathlib import Path

# Run as a file, this folder comes first on sys.path, where our modules would hide others'.
if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetune.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
