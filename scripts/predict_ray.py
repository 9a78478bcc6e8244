"""A trained model and a folder of Parquet or JSON Lines → the folder with predictions, on Ray Data.

    python scripts/predict_ray.py MODEL INPUT --output FOLDER [--actors 4] [--address auto]

The command is finetune/cli/predict_ray.py; --help lists its options.
"""

import sys

from finetune.cli.predict_ray import main

if __name__ == "__main__":
    sys.exit(main())
