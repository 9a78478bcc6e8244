"""Write the report.html of finished runs again, from results.json and metrics.jsonl.

    python scripts/report.py runs/bbc_news/…

The same as `finetune report`: finetune/cli/report.py; --help lists its options.
"""

import sys

from finetune.cli.report import main

if __name__ == "__main__":
    sys.exit(main())
