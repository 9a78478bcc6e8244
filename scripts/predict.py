"""Predict a label for each document, and write the labels to a csv, jsonl or Parquet file.

    python scripts/predict.py MODEL INPUT --output OUT [--keep COLUMN …] [--resume]
    accelerate launch scripts/predict.py MODEL INPUT --output OUT      # over processes and GPUs

The same as `finetune predict`: finetune/cli/predict.py; --help lists its options.
"""

import sys

from finetune.cli.predict import main

if __name__ == "__main__":
    sys.exit(main())
