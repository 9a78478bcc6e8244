"""Find a learning rate for a recipe by one short run with a growing rate on train rows.

    python scripts/find_lr.py RECIPE [section.key=value …] [--page lr_range.html]

The same as `finetune find-lr`: finetune/cli/find_lr.py; --help lists its options.
"""

import sys

from finetune.cli.find_lr import main

if __name__ == "__main__":
    sys.exit(main())
