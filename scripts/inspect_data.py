"""Show what a recipe's data holds and what is wrong with it, in seconds, before any training.

    python scripts/inspect_data.py recipes/ag_news.yaml [section.key=value …] [--json FILE]

The same as `finetune inspect`: finetune/cli/inspect.py; --help lists its options.
"""

import sys

from finetune.cli.inspect import main

if __name__ == "__main__":
    sys.exit(main())
