"""A trained classifier → a page on this machine to try texts on.

    python scripts/serve_demo.py runs/bbc_news/…

The command is finetune/cli/demo.py; --help lists its options.
"""

import sys

from finetune.cli.demo import main

if __name__ == "__main__":
    sys.exit(main())
