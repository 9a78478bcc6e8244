"""Search a space of values for the recipe that is best on validation, and score it on test once.

    python scripts/sweep.py RECIPE --space SPACE.yaml [section.key=value …] [--trials 30]
        [--minutes M] [--seeds 3] [--pruner median|hyperband|off] [--storage URL] [--dir FOLDER]

The same as `finetune sweep`: finetune/cli/sweep.py; --help lists its options.
"""

import sys

from finetune.cli.sweep import main

if __name__ == "__main__":
    sys.exit(main())
