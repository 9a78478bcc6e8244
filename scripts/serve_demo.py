"""A trained classifier → a page on this machine to try texts on.

    python scripts/serve_demo.py runs/bbc_news/…

Needs Gradio: the extra `demo`, or pip install gradio.
It shows the answer with the probability of each label, and what of the text the model read: how
much was cut off, or its windows and what each of them says alone. Only this machine can open the
page, and neither the page nor its server asks anything of another.
"""

import argparse
import sys

from finetune.runtime.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder, a model folder or a Hub id")
    parser.add_argument("--port", type=int, help="default: the first that is free from 7860 on")
    parser.add_argument("--revision", help="of a Hub id: a branch, tag or commit")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with the model"
    )
    known = parser.parse_args()
    try:
        # Heavy imports wait until the command line is known to be right.
        from finetune.inference import demo
        from finetune.inference.classifier import Classifier
        from finetune.runtime.console import quiet_libraries

        demo.require_gradio()
        quiet_libraries()
        classifier = Classifier(
            known.model,
            revision=known.revision,
            trust_remote_code=known.trust_remote_code,
        )
        demo.serve(classifier, known.model, known.port)
    except InputError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
