"""Serve a trained classifier over HTTP, to this machine unless told otherwise.

    finetune serve runs/bbc_news/…
    curl localhost:8000/predict -H 'Content-Type: application/json' -d '{"inputs": "A text."}'

Needs FastAPI, uvicorn and Prometheus' client, which the extra `serve` installs. /predict has the
requests and answers of text-embeddings-inference; /v1/classify predicts as the model decides, with
thresholds, abstention and windows; /health and /metrics are for whoever watches; / describes all of
them. Requests of many clients are computed together. FINETUNE_API_KEY in the environment is a key
that requests must bring. Ctrl-C and SIGTERM stop it: what was taken is answered first.
"""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec

from finetune.cli.argument_types import positive
from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.cli.path_checks import check_model
from finetune.inference.engines import AUTO, ENGINES, EngineOptions, ModelSource
from finetune.runtime.commands import install
from finetune.runtime.errors import InputError, ProblemList

NEEDS = {"fastapi": "FastAPI", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(lambda: serve(known))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called."""
    parser = CommandParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run folder, a model folder or a Hub id")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="the address to listen at; 0.0.0.0 "
        "is every one of this machine (default: %(default)s, this machine alone)")  # fmt: skip
    add("--port", type=int, default=8000, help="the port; 0: any free one (default: %(default)s)")
    add("--allow-host", nargs="+", default=[], action="extend", metavar="NAME", help="names under "
        "which the server is reached, beside localhost; with --host, IP addresses too")  # fmt: skip
    add("--max-rows", type=positive, default=256, metavar="ROWS",
        help="the most documents of a request (default: %(default)s)")  # fmt: skip
    add("--max-characters", type=positive, default=200_000, metavar="CHARACTERS",
        help="the most characters of a text (default: %(default)s)")  # fmt: skip
    add("--max-body", type=positive, default=2_000_000, metavar="BYTES",
        help="the most bytes of a request (default: %(default)s)")  # fmt: skip
    add("--max-queue", type=positive, default=2048, metavar="ROWS", help="the most documents "
        "that wait or are computed; others must try again (default: %(default)s)")  # fmt: skip
    add("--batch-tokens", type=positive, metavar="TOKENS", help="the most tokens of requests that "
        "are computed together (default: as many as the engine computes at once)")  # fmt: skip
    add("--batch-wait", type=positive, default=5, metavar="MILLISECONDS", help="how long a request "
        "waits for others to be computed with (default: %(default)s)")  # fmt: skip
    add("--engine", choices=(*ENGINES, AUTO), help="what computes; auto: the fastest that "
        "keeps 99.8 %% of torch's labels in a probe of a second (default: that which MODEL was "
        "exported to, else torch)")  # fmt: skip
    add("--precision", choices=("auto", "bf16", "fp16", "fp32"), default="auto",
        help="the precision of the matrix products (torch engine)")  # fmt: skip
    add("--threads", type=positive, help="the number of CPU threads (default: all cores)")
    add("--tokens", type=positive, help="the most tokens in a micro-batch, which bounds memory")
    add("--revision", help="the branch, tag or commit of a model on the Hub")
    add("--trust-remote-code", action="store_true", help="run code that comes with a Hub model")
    return parser


def serve(known: argparse.Namespace) -> int:
    """Serve until a signal.

    Raises:
        InputError: without the extra, or for a model, address or key that is not right.
    """
    check_model(known.model)
    missing = [name for module, name in NEEDS.items() if find_spec(module) is None]
    if missing:
        raise InputError(f"{', '.join(missing)}: not installed; {install('serve')}")
    from finetune.inference import server
    from finetune.inference.classifier import Classifier
    from finetune.inference.classifier_service import ServerLimits, model_name
    from finetune.inference.request_batcher import QueueLimits
    from finetune.runtime.console import print_line, quiet_libraries

    problems = ProblemList()
    names: tuple[str, ...] = ()
    with problems.collect():
        names = server.read_names(known.allow_host)
    with problems.collect():
        server.read_key()
    problems.raise_if_any()  # before a model is loaded in vain
    quiet_libraries()
    classifier = Classifier.with_options(
        ModelSource(known.model, known.revision, known.trust_remote_code),
        known.engine,
        EngineOptions(known.precision, known.threads, known.tokens),
    )
    if known.engine == AUTO:
        print_line(classifier.engine.reasons[0], even_if_quiet=True)
    queue = QueueLimits(
        rows=known.max_queue, tokens=known.batch_tokens, wait=known.batch_wait / 1000
    )
    server.run_server(
        classifier,
        server.ServerOptions(
            name=model_name(known.model),
            host=known.host,
            port=known.port,
            allowed_hosts=names,
            most_bytes=known.max_body,
            limits=ServerLimits(known.max_rows, known.max_characters, queue),
        ),
    )
    return 0
