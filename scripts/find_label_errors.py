"""Rank the rows of a recipe's data by how likely their label is wrong, for a person to check.

    python scripts/find_label_errors.py RECIPE [section.key=value …] --output suspects.csv

The same as `finetune suspects`: finetune/cli/find_label_errors.py; --help lists its options.
"""

import sys

from finetune.cli.find_label_errors import main

if __name__ == "__main__":
    sys.exit(main())
