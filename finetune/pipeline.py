"""Recipe → a fine-tuned, scored, saved document classifier. The whole story, in order."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.config.schema import Recipe
from finetune.runtime import console
from finetune.runtime.signals import SignalListener

if TYPE_CHECKING:
    from finetune.training.lr_finder import LrRangeTest
    from finetune.training.prepared_data import DataCache
    from finetune.training.session import ScoreCallback


def run_seeds(recipe: Recipe, listener: SignalListener, dry: bool = False) -> Path | None:
    """A run for each of the recipe's seeds, and their mean and spread; the folder of them all.

    Raises:
        InputError: as one run does.
    """
    from finetune.reporting import console_report, html_report, seeds_report
    from finetune.runtime import atomic_files
    from finetune.training import prepared_data
    from finetune.tuning import seeds

    shelf = prepared_data.DataCache()
    folders = seeds.run_seeds(recipe, lambda one: run(one, listener, dry, shelf=shelf))
    if not folders:
        return None
    home = folders[0].parent
    if console.speaks():
        found = seeds_report.summarize_seeds(recipe, folders)
        atomic_files.write_json(home / "seeds.json", found)
        html_report.write_seeds_report(found, home)
        console_report.print_seeds(found, home)
    return home


def run_folds(recipe: Recipe, listener: SignalListener, dry: bool) -> Path | None:
    """A run for each fold, and one on all rows, which these score; its folder.

    Raises:
        InputError: as one run does.
    """
    from finetune.hub import push
    from finetune.tuning import cross_validation

    def check_all() -> None:
        if not dry:
            push.check_access(recipe.publish)
        cross_validation.check_folds(recipe)

    return cross_validation.run_folds(
        recipe,
        lambda one, judges, first: run(
            one, listener, dry, judges=judges, ahead=check_all if first else None
        ),
    )


def run(
    recipe: Recipe,
    listener: SignalListener,
    dry: bool = False,
    watch: "ScoreCallback | None" = None,
    look: "Callable[[Callable[[], LrRangeTest]], None] | None" = None,
    judges: Sequence[Path] = (),
    ahead: Callable[[], None] | None = None,
    shelf: "DataCache | None" = None,
) -> Path | None:
    """Everything that a recipe asks for; the run's folder, or None after a dry run.

    Args:
        watch: makes this a trial that only tunes: it is told of each scoring of validation, test is
            taken out before anything could look at it, and the run ends with its last step.
        look: is given the range test that the first stage's rate asks for, to make it, and no more
            is done; test is taken out here too.
        judges: the folders of the folds' runs: trains on all rows, which these runs have scored.
        ahead: refuses what would stop a later run of the same command; the main process calls it.
        shelf: holds the documents of earlier runs of the same command, which this one may share.

    Raises:
        StoppedError: after a signal.
        InputError: for what the user can mend. Nothing is written before the data, the recipe
            and the model are known to be right.
    """
    # Heavy imports wait until the recipe is known to be right: a typo is told at once.
    from accelerate.utils import set_seed

    from finetune.compute import accelerator as accelerator_module
    from finetune.compute import frozen_cache, packing
    from finetune.config.schema import for_multi_label
    from finetune.data import checks
    from finetune.data.corpus import corpus_hash, split_hash
    from finetune.evaluation import analysis, metrics
    from finetune.hub import push
    from finetune.modeling import build, freezing, pretrained
    from finetune.reporting import console_report, html_report, model_card
    from finetune.reporting import results as results_module
    from finetune.reporting.results_model import Hashes
    from finetune.runtime import atomic_files, folder_lock
    from finetune.runtime.cost_meter import CostMeter
    from finetune.runtime.distributed import run_on_main, run_on_main_first
    from finetune.tokenization import truncation_audit
    from finetune.training import (
        checkpoint,
        finalize,
        loop,
        losses,
        lr_finder,
        messages,
        prepared_data,
        resume,
        run_folder,
        stages,
        stop_consensus,
        trackers,
        train_state,
    )
    from finetune.training.session import Session
    from finetune.training.train_log import DivergedError, TrainLog
    from finetune.tuning import cross_validation

    # This machine, and what must be right before anything is loaded.
    started, meter = datetime.now().astimezone(), CostMeter()
    shelf = prepared_data.DataCache() if shelf is None else shelf
    plan, accelerator = accelerator_module.start_accelerator(recipe)
    if ahead is not None:
        run_on_main(accelerator, ahead)
    hold = folder_lock.FolderLock()  # the folder is ours for as long as this lives
    start = run_on_main(accelerator, lambda: resume.locate_start(recipe.run, started, hold))
    messages.print_notes(start.notes)
    recipe = run_on_main(accelerator, lambda: resume.with_recorded_rates(recipe, start))
    score_of = recipe.score
    wanted = run_on_main_first(
        accelerator,
        lambda: metrics.load_metrics(score_of.metrics, score_of.best, score_of.trust_remote_code),
    )
    if not dry and watch is None and look is None:
        run_on_main(accelerator, lambda: push.check_access(recipe.publish))

    # Documents → labels and splits → tokens.
    console_report.print_source(recipe)
    only_tunes = watch is not None or look is not None
    many = recipe.run.folds if judges else None
    corpus = prepared_data.load_splits(recipe, accelerator, shelf, folds=many, test=not only_tunes)
    judged = (
        run_on_main(accelerator, lambda: cross_validation.held_out_logits(judges, corpus))
        if judges
        else None
    )
    if corpus.multi_label:
        recipe = for_multi_label(recipe)
        wanted = metrics.load_metrics(
            recipe.score.metrics,
            recipe.score.best,
            recipe.score.trust_remote_code,
            several=True,
        )
    messages.print_notes(stop_consensus.validate_stopping(recipe, corpus, tries=watch is not None))
    metrics.check_metrics(wanted, len(corpus.labels), corpus.multi_label)
    assert corpus.train.labels is not None, "data.prepare refuses train rows without labels"
    weights = losses.class_weights(recipe.train.class_weights, corpus.train.labels, corpus.labels)
    read = prepared_data.tokenize_splits(recipe, corpus, accelerator, shelf)
    freezing.validate_freezing(recipe, pretrained.encoder_config(read.config))
    tables, reads, max_length = read.tables, read.reads, read.max_length
    console_report.print_data(corpus, tables, max_length)
    sharded = accelerator.is_fsdp2
    if not sharded:
        plan = packing.plan_packing(plan, recipe, read.config)
    choices = truncation_audit.audit_truncation(
        corpus.train,
        corpus.labels,
        tables["train"],
        reads,
        pretrained.max_positions(read.config),
        read.tokenizer.num_special_tokens_to_add(),
        pretrained.encoder_config(read.config),
        plan.micro_batch_tokens,
        recipe.train.batch_size,
    )
    console_report.print_audit(choices)
    console_report.print_plan(recipe, plan, accelerator.num_processes, sharded, tables["train"])
    if dry:
        console_report.print_dry_run(recipe, tables["train"], start)
        return None

    # The encoder with its new head, the optimizer, the run's folder, and what stands in it.
    all_stages = stages.plan_stages(recipe, len(corpus.train))
    steps = all_stages[-1].end
    stage = stages.stage_at(
        all_stages, 0 if start.point is None else checkpoint.step_of(start.point)
    )
    builder = stages.StageBuilder(read.source, corpus, tables, reads, plan, accelerator)
    classifier, frozen = builder.build(stage)
    first_weights = build.initial_weights_hash(classifier, recipe.model, builder.priors(recipe))
    # Of several stages, some may keep states.
    states = "off" if frozen is None and stage.many == 1 else frozen_cache.cache_dtype(recipe, plan)
    saved = run_folder.resolve_recipe(recipe, plan, max_length, states, classifier)
    tokens_hash = resume.tokens_hash(tables)
    ends = [one.end for one in all_stages if not one.is_last]
    identity = resume.run_identity(
        recipe, saved, corpus, tokens_hash, classifier, first_weights, ends
    )
    if run_on_main(accelerator, lambda: resume.has_nothing_left(start, saved, identity, steps)):
        messages.print_finished(start.folder)
        return start.folder
    set_seed(recipe.run.seed, device_specific=True)  # dropout differs between processes
    if start.point is not None and stage.number > 1:  # its frozen layers may have been trained
        so_far = stages.checkpoint_weights(start.point, accelerator)
        train_state.load_weights(classifier, so_far, accelerator, partly=True)
    parts = builder.set_up(stage, classifier, frozen)
    del classifier, frozen  # a later stage lets go of them
    if look is not None:
        look(partial(builder.find_rate, stage, parts))
        return None
    folder = run_on_main(
        accelerator, lambda: run_folder.claim_folder(start, recipe.run, saved, hold)
    )
    accelerator.project_configuration.logging_dir = str(folder / "trackers")
    run_on_main(
        accelerator,
        lambda: atomic_files.write_json(folder / "preflight.json", checks.as_json(corpus)),
    )
    course = Session(
        choices=recipe,
        saved=saved,
        accelerator=accelerator,
        listener=listener,
        stages=all_stages,
        stage=stage,
        builder=builder,
        parts=parts,
        tokenizer=read.tokenizer,
        corpus=corpus,
        wanted=wanted,
        folder=folder,
        identity=identity,
        record=TrainLog(accelerator, recipe.optim.max_grad_norm),
        meter=meter,
        watch=watch,
    )
    del parts
    if start.point is not None:
        notes = course.go_on_from(start.point)
        messages.print_resumed(start.point, course.record.steps, steps, notes)
    course.find_rate()
    trackers.start(
        accelerator,
        course.choices,
        course.folder / "trackers",
        course.standing.run_id,
        course.record.steps,
    )

    # Train on train; pick by validation, and calibrate by it; then, once, score test.
    messages.print_training()
    course.begin()
    with course.stopping:
        while course.goes_on():
            stage = course.stage
            try:
                meter.timed("train", loop.fit)(
                    course.parts.model,
                    course.parts.optimizer,
                    course.parts.tables["train"],
                    corpus.train.labels,
                    stage.choices,
                    course.parts.plan.micro_batch_tokens,
                    accelerator,
                    course.record,
                    course.log_train,
                    meter.timed("validate", course.validate),
                    meter.timed("checkpoint", course.pause),
                    loop.lr_schedule(len(corpus.train), stage.choices, course.standing.rate_scale),
                    weights,
                    stage.begin,
                )
            except DivergedError as error:
                course.back_off(error)
    recipe, saved = course.choices, course.saved  # with the rates that were found
    if watch is not None:
        trackers.finish(accelerator)
        return course.folder
    with meter("close"):
        outcome = finalize.finalize(course, plan.precision, judged)

    with meter("analyse"):
        analysed = run_on_main(
            accelerator,
            lambda: analysis.analyse(corpus, tables, outcome, wanted, recipe.score.target_accuracy),
        )
    results = results_module.build_results(
        recipe,
        results_module.Execution.of(started, accelerator, course.parts.plan),
        results_module.data_section(recipe, corpus, tables, reads, choices),
        results_module.model_section(recipe, course.parts.bare, reads),
        results_module.train_section(
            recipe,
            course.stages,
            course.record,
            course.standing.best["step"],
            course.standing.back_offs,
            run_on_main(accelerator, lambda: lr_finder.read_range_tests(course.folder)),
        ),
        analysed,
        Hashes(
            data=corpus_hash(corpus),
            test=split_hash(corpus.test),
            recipe=resume.recipe_hash(saved),
            tokens=tokens_hash,
            first_weights=first_weights,
            weights=outcome.weights,
        ),
        results_module.cost_section(meter, course.record),
    )

    def write() -> None:
        predictions = course.folder / "predictions" / "test.jsonl"
        results_module.write_predictions(
            predictions,
            corpus.test,
            corpus.labels,
            outcome.test.logits,
            corpus.multi_label,
            outcome.test.thresholds,
        )
        model_card.write_card(results, recipe, read.source, course.folder)
        results_module.write_results(results, course.folder)
        html_report.write_report(results, course.folder)

    run_on_main(accelerator, write)
    console_report.print_results(results, course.folder)
    trackers.finish(accelerator)  # what follows may fail, and the run is over
    if recipe.publish.repo_id is not None:
        done = run_on_main(
            accelerator,
            lambda: push.push(
                course.folder,
                recipe.publish,
                trust_remote_code=recipe.model.trust_remote_code,
            ),
        )
        console.print_line(f"Published: {done.url}", even_if_quiet=True)
    return course.folder


def run_trial(
    recipe: Recipe, listener: SignalListener, on_score: "ScoreCallback", cache: "DataCache"
) -> None:
    """A run that only tunes: test is taken out before anything could look at it.

    Args:
        on_score: is told of each scoring of validation; may raise to end the run there.

    Raises:
        InputError, StoppedError: as `run` does.
    """
    run(recipe, listener, watch=on_score, shelf=cache)


def range_test(recipe: Recipe, listener: SignalListener) -> "LrRangeTest":
    """The range test of a recipe, of its first stage where it has several, and no more of its run.

    Raises:
        InputError, StoppedError: as `run` does.
    """
    found: list[LrRangeTest] = []

    def look(find: "Callable[[], LrRangeTest]") -> None:
        console.set_quiet(False)
        found.append(find())

    console.set_quiet(True)  # until the test itself begins
    try:
        run(recipe.with_rate("auto"), listener, look=look)
    finally:
        console.set_quiet(False)
    return found[0]
