"""Recipe → a fine-tuned, scored, saved document classifier. The whole story, in order.

accelerate launch finetune/run.py recipes/ag_news.yaml [section.key=value …] [--dry-run]
"""

import argparse
import functools
import math
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

# Run as a file, this folder comes first on sys.path, where our modules would hide others'.
if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetune import problems, recipe_file, terminal
from finetune.problems import InputError
from finetune.recipe import Recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 when all went well, 2 for a problem that the user can mend."""
    parser = argparse.ArgumentParser(
        prog="finetune/run.py",
        description="Fine-tune a pretrained encoder into a document classifier.",
        usage="accelerate launch finetune/run.py RECIPE [section.key=value …] [--dry-run]",
        epilog=recipe_file.help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="a YAML file, such as recipes/ag_news.yaml")
    parser.add_argument("--dry-run", action="store_true", help="show what would run, then stop")
    known, words = parser.parse_known_args(arguments)
    try:
        run(recipe_file.load(known.recipe, words), dry=known.dry_run)
    except InputError as error:
        return _refuse(error)
    except OSError as error:
        mendable = problems.from_os_error(error)
        if mendable is None:
            raise
        return _refuse(mendable)
    except KeyboardInterrupt:
        terminal.end_progress()
        print("interrupted; what was written so far stays", file=sys.stderr)
        return 130
    return 0


def _refuse(error: InputError) -> int:
    terminal.end_progress()
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of a machine's processes, one speaks
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
    return 2


def run(recipe: Recipe, dry: bool = False) -> None:
    """Everything that a recipe asks for.

    Raises:
        InputError: for what the user can mend. Nothing is written before the data, the recipe
            and the model are known to be right.
    """
    # Heavy imports wait until the recipe is known to be right: a typo is told at once.
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    from accelerate.utils import GradientAccumulationPlugin, set_seed

    from finetune import (
        checkpoint,
        data,
        hardware,
        loop,
        metrics,
        model,
        optim,
        pretrained,
        publish,
        report,
        scoring,
        sources,
        summary,
        tokens,
        trackers,
    )
    from finetune.processes import main_first, main_only
    from finetune.record import DivergedError

    # This machine, and what must be right before anything is loaded.
    started = datetime.now().astimezone()
    terminal.quiet_libraries()
    plan = hardware.plan(recipe.model, recipe.train)
    folder = report.choose_folder(recipe.run, started)
    trackers.check(recipe.run.trackers)
    accelerator = Accelerator(
        mixed_precision="no" if plan.precision == "fp32" else plan.precision,
        log_with=list(recipe.run.trackers) or None,
        project_dir=folder / "trackers",
        # The loop divides by the step's rows itself, whatever the environment says.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[
            # Buffers never change here; to send them at every forward would cost time.
            DistributedDataParallelKwargs(broadcast_buffers=False),
            # The others wait while the main process downloads.
            InitProcessGroupKwargs(timeout=timedelta(hours=2)),
        ],
    )
    hardware.check_distributed(accelerator)
    hardware.set_threads(plan)
    terminal.speak_only_if(accelerator.is_main_process)
    score_of = recipe.score
    wanted = main_first(
        accelerator,
        lambda: metrics.load(score_of.metrics, score_of.best, score_of.trust_remote_code),
    )
    if not dry:
        main_only(accelerator, lambda: publish.check(recipe.publish))

    # Documents → labels and splits → tokens.
    summary.say_source(recipe)
    corpus = main_first(
        accelerator, lambda: data.prepare(sources.load_rows(recipe.data), recipe.data)
    )
    metrics.try_out(wanted, len(corpus.labels))
    source = sources.model_source(recipe.model.source)
    config, tokenizer = main_first(
        accelerator,
        lambda: (
            pretrained.load_config(source, recipe.model),
            pretrained.load_tokenizer(source, recipe.model),
        ),
    )
    max_length = tokens.max_length(recipe.data.max_length, pretrained.max_positions(config))
    tokenizer.model_max_length = max_length  # saved with the model: it truncates as training did
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    tables = {
        split.name: tokens.encode(split.texts, tokenizer, max_length) for split in corpus.splits()
    }
    summary.say_data(corpus, tables, max_length)
    summary.say_plan(recipe, plan, accelerator.num_processes, tables["train"])
    if dry:
        return summary.say_dry_run(recipe, tables["train"])

    # The encoder with its new head, the optimizer, the run's folder.
    classifier = main_first(
        accelerator,
        lambda: model.build(
            source, recipe.model, corpus.labels, plan.attention, seed=recipe.run.seed
        ),
    )
    set_seed(recipe.run.seed, device_specific=True)  # dropout differs between processes
    prepared, optimizer = accelerator.prepare(classifier, optim.build(classifier, recipe.optim))
    saved = report.as_ran(recipe, plan, max_length, classifier)
    folder = main_only(accelerator, lambda: report.claim_folder(folder, recipe.run, saved))
    accelerator.project_configuration.set_directories(str(folder / "trackers"))
    trackers.start(accelerator, recipe, folder / "trackers")

    def score(split: data.Split) -> scoring.Scores:
        return scoring.score(
            prepared,
            tables[split.name],
            split.labels,
            wanted,
            accelerator,
            plan.micro_batch_tokens,
        )

    def log(kind: str, step: int, values: dict[str, float]) -> None:
        line = {"kind": kind, "step": step} | values
        main_only(accelerator, lambda: report.append(folder / "metrics.jsonl", line))
        accelerator.log({f"{kind}/{name}": value for name, value in values.items()}, step)

    best: dict[str, float] = {}

    def validate(step: int) -> None:
        """Score validation; keep the model where it is the best so far (not where it ties)."""
        values = score(corpus.validation).values
        if not math.isfinite(values["loss"]):
            raise DivergedError.at(step, "validation loss", values["loss"])
        log("validation", step, values)
        better = metrics.is_better(recipe.score.best, values, best)
        summary.say_validation(step, values, better)
        if better:
            best.update(values, step=step)
            main_only(
                accelerator,
                lambda: checkpoint.save_model(
                    accelerator.unwrap_model(prepared), tokenizer, folder / "model"
                ),
            )

    # Train on train; pick by validation; then, once, score the picked model on test.
    assert corpus.train.labels is not None, "data.prepare refuses train rows without labels"
    summary.say_training()
    try:
        record = loop.fit(
            prepared,
            optimizer,
            tables["train"],
            corpus.train.labels,
            recipe,
            plan.micro_batch_tokens,
            accelerator,
            validate,
            functools.partial(log, "train"),
        )
    except DivergedError as error:
        raise error.with_last_good(best.get("step"), folder / "model") from None
    checkpoint.restore_model(
        accelerator.unwrap_model(prepared), folder / "model", recipe.model.trust_remote_code
    )
    scores = score(corpus.test)
    results = report.results(
        recipe,
        started,
        accelerator.num_processes,
        plan,
        corpus,
        tables,
        max_length,
        classifier,
        record,
        best,
        scores,
    )

    def write() -> None:
        predictions = folder / "predictions" / "test.jsonl"
        report.write_predictions(predictions, corpus.test, corpus.labels, scores.logits)
        report.write_json(folder / "results.json", results)

    main_only(accelerator, write)
    summary.say_results(results, folder)
    if recipe.publish.repo_id is not None:
        url = main_only(accelerator, lambda: publish.push(folder / "model", recipe.publish))
        terminal.say(f"\nPublished: {url}")
    accelerator.end_training()


if __name__ == "__main__":
    sys.exit(main())
