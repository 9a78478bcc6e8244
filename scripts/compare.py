"""Compare runs on the same test rows, or rank all runs of a folder.

    python scripts/compare.py runs/bbc_news/A runs/bbc_news/B [--page comparison.html]
    python scripts/compare.py runs/ [--page leaderboard.html] [--csv runs.csv]

The same as `finetune compare`: finetune/cli/compare.py; --help lists its options.
"""

import sys

from finetune.cli.compare import main

if __name__ == "__main__":
    sys.exit(main())
