"""A session that has done its steps → the folder of the adapted encoder, with a card and a report.

    encoder/
        config.json, model.safetensors, tokenizer.json, …     what a recipe's model.source reads
        README.md, adaptation.json                            what was done, and what came of it
        metrics.jsonl                                         each line of the log

`adaptation.json` is written last: a folder that has it is finished.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.adaptation.perplexity import HeldOutScore
from finetune.adaptation.session import Session
from finetune.adaptation.settings import Settings
from finetune.modeling.masked_language_model import save_encoder
from finetune.reporting.markdown import block, code, escape
from finetune.runtime import commands
from finetune.runtime.atomic_files import fsync_path, move_into_place, write_json, write_text
from finetune.runtime.console import print_line, print_wrapped
from finetune.runtime.environment import library_versions
from finetune.runtime.errors import explain_write_errors
from finetune.tokenization.token_table import TokenTable
from finetune.training import checkpoint

REPORT, CARD, BEGUN = "adaptation.json", "README.md", "begun.json"
REMEDY = "set --output to"
Tables = Mapping[str, TokenTable]


def is_finished(folder: Path) -> bool:
    """Whether a folder holds an adapted encoder, whole."""
    return (folder / REPORT).is_file()


def is_begun(folder: Path) -> bool:
    """Whether a folder is that of an encoder that is being adapted, or was when it stopped."""
    return (folder / BEGUN).is_file()


def mark_begun(settings: Settings) -> None:
    """Say whose folder it is, before there is anything else in it."""
    write_json(
        settings.output / BEGUN,
        {"encoder": settings.encoder, "documents": list(settings.documents)},
        REMEDY,
    )


def write_outputs(session: Session) -> None:
    """Encoder, card and report; then the checkpoints go. On the main process.

    Raises:
        InputError: where they cannot be written; the checkpoints stay.
    """
    folder, prepared = session.folder, session.prepared
    report = describe(session)
    aside = folder / ".encoder.new"
    with explain_write_errors(folder, REMEDY):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        save_encoder(
            prepared.model, prepared.tokenizer, aside, prepared.original, prepared.unreached
        )
        for file in sorted(aside.iterdir()):
            fsync_path(file)
            move_into_place(file, folder / file.name)
        aside.rmdir()
    write_text(folder / CARD, format_card(report, folder), REMEDY)
    write_json(folder / REPORT, report, REMEDY)
    (folder / BEGUN).unlink(missing_ok=True)
    shutil.rmtree(folder / checkpoint.FOLDER, ignore_errors=True)
    print_outcome(report, folder)


def describe(session: Session) -> dict[str, Any]:
    """What was done, and what came of it."""
    prepared, recipe, log = session.prepared, session.recipe, session.log
    scores, tables = session.scores(), prepared.rows.tables
    first, last = scores[0], scores[-1]
    best = min(scores, key=lambda score: score.loss)
    return {
        "encoder": prepared.settings.encoder,
        "revision": recipe.model.revision,
        "documents": list(prepared.settings.documents),
        "arguments": prepared.settings.words(),
        "is_head_new": prepared.is_head_new,
        "perplexity": {
            "before": first.perplexity,
            "after": last.perplexity,
            "lowest": best.perplexity,
            "lowest_at_step": best.step,
        },
        "held_out": [{"step": score.step, **score.as_json()} for score in scores],
        "rows": {
            "documents": len(prepared.documents.train),
            "held_out_documents": len(prepared.documents.held_out),
            "invalid": prepared.documents.invalid,
            "repeats": prepared.documents.repeats,
            "train": len(tables["train"]),
            "train_tokens": int(tables["train"].lengths.sum()),
            "held_out": len(tables["validation"]),
            "max_length": prepared.rows.max_length,
        },
        "train": {
            "steps": log.steps,
            "epochs": log.rows / len(tables["train"]),
            "tokens": log.tokens,
            "seconds": log.seconds,
            "batch_size": recipe.train.batch_size,
            "lr": recipe.optim.lr,
            "head_lr_scale": recipe.optim.head_lr_scale,
            "weight_decay": recipe.optim.weight_decay,
            "seed": recipe.run.seed,
            **prepared.settings.own,
        },
        "processes": session.env.accelerator.num_processes,
        "hardware": {
            "device": session.parts.plan.name,
            "precision": session.parts.plan.precision,
            "packed": session.parts.plan.packed,
        },
        "hashes": {
            name: split["hash"] for name, split in session.identity["data"]["splits"].items()
        },
        "versions": library_versions(),
    }


def format_card(report: Mapping[str, Any], folder: Path) -> str:
    """The report as a person reads it, in Markdown."""
    rows, train, perplexity = report["rows"], report["train"], report["perplexity"]
    scores = [HeldOutScore(line["step"], line["loss"]) for line in report["held_out"]]
    before = "before, with a new head" if report["is_head_new"] else "before"
    lines = [
        f"# {escape(report['encoder'])}, adapted to documents",
        "",
        f"{code(report['encoder'])} after continued pretraining as a masked language model, on "
        f"{rows['documents']:,} unlabelled documents ({rows['train_tokens']:,} tokens): "
        f"{train['steps']:,} steps of {train['batch_size']:,} rows, {train['epochs']:.1f} passes, "
        f"{train['seconds']:,.0f} s of training.",
        "",
        f"On {rows['held_out_documents']:,} documents that were held out, its perplexity for "
        f"masked tokens was {perplexity['before']:,.2f} {before}, and is "
        f"{perplexity['after']:,.2f}.",
        "",
        "| after step | perplexity, held out |",
        "|---:|---:|",
        *(f"| {score.step:,} | {score.perplexity:,.2f} |" for score in scores),
        "",
        "It is an encoder, to be fine-tuned by a recipe:",
        "",
        block(f"model:\n  source: {json.dumps(str(folder), ensure_ascii=False)}", "yaml"),
        "",
        "Where it began as an encoder of sentences, its pooled vectors are no longer those that it "
        "was trained for: use it for search or clustering only if you have measured that.",
        "",
        "Made by:",
        "",
        block(commands.quote(["finetune", "adapt", *report["arguments"]]), "console"),
        "",
        "Every number, the settings and the versions are in `adaptation.json`.",
        "",
    ]
    return "\n".join(lines)


def print_outcome(report: Mapping[str, Any], folder: Path) -> None:
    """What came of it."""
    perplexity, train = report["perplexity"], report["train"]
    print_line()
    print_line(
        f"Perplexity, held out: {perplexity['before']:,.2f} before, {perplexity['after']:,.2f} "
        f"after {train['steps']:,} steps",
        even_if_quiet=True,
    )
    if perplexity["after"] > perplexity["lowest"] and perplexity["lowest_at_step"]:
        print_wrapped(
            f"it was lowest after step {perplexity['lowest_at_step']:,}, at "
            f"{perplexity['lowest']:,.2f}: fewer steps, or more documents, may serve better",
            mark="  ! ",
        )
    print_line(f"Written to {folder}", even_if_quiet=True)
    print_line("Next: set model.source of a recipe to it, and compare with the encoder as it was")
