"""Push a finished run or a model folder to the Hub, in one commit.

    python scripts/push_to_hub.py runs/bbc_news/… you/your-classifier --dry-run
    python scripts/push_to_hub.py runs/bbc_news/… you/your-classifier --verify

The same as `finetune push`: finetune/cli/push.py; --help lists its options.
"""

import sys

from finetune.cli.push import main

if __name__ == "__main__":
    sys.exit(main())
