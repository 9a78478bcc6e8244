"""Export a trained model, and check it against torch on real rows.

    python scripts/export_onnx.py MODEL OUT --data FILE [--label COLUMN] [--int8]
    python scripts/predict.py OUT INPUT --output answers.csv      # runs it

The same as `finetune export`: finetune/cli/export_onnx.py; --help lists its options.
"""

import sys

from finetune.cli.export_onnx import main

if __name__ == "__main__":
    sys.exit(main())
