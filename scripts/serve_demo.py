"""Serve a page on this machine where texts can be tried on a trained classifier.

    python scripts/serve_demo.py runs/bbc_news/…

The same as `finetune demo`: finetune/cli/demo.py; --help lists its options.
"""

import sys

from finetune.cli.demo import main

if __name__ == "__main__":
    sys.exit(main())
