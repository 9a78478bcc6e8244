"""Predict a label for each row of Parquet, JSON Lines, csv or tsv files, in parallel on Ray Data.

    python scripts/predict_ray.py MODEL INPUT --output FOLDER [--actors 4] [--address auto]

The same as `finetune predict-ray`: finetune/cli/predict_ray.py; --help lists its options.
"""

import sys

from finetune.cli.predict_ray import main

if __name__ == "__main__":
    sys.exit(main())
