"""Recipe → a fine-tuned, scored, saved document classifier. The whole story, in order."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from finetune.compute.hardware_plan import Hardware, apply_plan
from finetune.compute.packing import plan_packing
from finetune.compute.time_estimate import PlannedTraining, TimeEstimate, estimate_training
from finetune.config.label_tasks import base_metric
from finetune.config.schema import Recipe, for_task
from finetune.data.corpus import Corpus, corpus_hash
from finetune.evaluation.metrics import bind_labels, check_metrics, load_metrics
from finetune.hub import delivery, publish
from finetune.inference import out_of_scope, report_words, teacher
from finetune.modeling import freezing, pretrained
from finetune.reporting import console_report, dry_run_report, html_report, seeds_report
from finetune.reporting.run_outputs import (
    IncompleteError,
    RunOutputs,
    conclude,
    describe_failure,
    reopen_results,
    write_run_folder,
)
from finetune.runtime import console
from finetune.runtime.errors import ProblemList
from finetune.runtime.memory_errors import (
    LOWER_BATCH,
    LOWER_DATA,
    LOWER_MODEL,
    explain_memory_errors,
)
from finetune.runtime.signals import SignalListener
from finetune.tokenization.truncation_audit import AuditedEncoder, ReadingOption, audit_truncation
from finetune.training import (
    dry_recipe,
    losses,
    lr_finder,
    messages,
    prepared_data,
    resume,
)
from finetune.training.assembly import assemble
from finetune.training.folder_mark import mark_finished
from finetune.training.loop import fit
from finetune.training.prepared_data import DataCache, PreparedData, TokenizedData
from finetune.training.run_environment import RunEnvironment
from finetune.training.run_folder import Start
from finetune.training.session import Session
from finetune.training.stages import plan_stages
from finetune.training.stop_consensus import validate_stopping
from finetune.training.teacher_targets import TeacherTargets
from finetune.training.train_log import DivergedError
from finetune.training.validator import ScoreCallback
from finetune.tuning import cross_validation, seeds


def run_recipe(recipe: Recipe, listener: SignalListener) -> Path:
    """One run, or those of the recipe's seeds or folds; the folder of its results, or of them all.

    Raises:
        InputError, StoppedError: as `run` does.
    """
    if recipe.run.seeds is not None:
        return run_seeds(recipe, listener)
    if recipe.run.folds is not None:
        return run_folds(recipe, listener)
    return run(recipe, listener)


def run(
    recipe: Recipe,
    listener: SignalListener,
    data_cache: DataCache | None = None,
    out_of_fold: Sequence[Path] = (),
    before: Callable[[], None] | None = None,
) -> Path:
    """Everything that a recipe asks for; returns the run's folder.

    Args:
        data_cache: holds the documents of earlier runs of the same command.
        out_of_fold: the folders of the folds' runs: trains on all rows, which these have scored.
        before: refuses what would stop a later run of the same command.

    Raises:
        StoppedError: after a signal.
        InputError: for what the user can fix. Nothing is written before the data, the recipe
            and the model are known to be right.
        IncompleteError: where the run is trained, and some of its outputs could not be made.
    """
    env = RunEnvironment.start(recipe, listener)
    env.on_main(before or (lambda: None))
    recipe, start = locate_start(recipe, env)
    check_access = partial(publish.check_access, recipe)
    if not start.complete:  # else the Hub is asked once it is known that the run goes on
        env.on_main(check_access)  # before hours of training
    folds = recipe.run.folds if out_of_fold else None
    with explain_memory_errors("preparing the data", LOWER_DATA):
        data = prepare_data(recipe, env, data_cache, start, folds=folds)
    held_out = env.on_main(lambda: cross_validation.held_out_logits(out_of_fold, data.corpus))
    with explain_memory_errors("building the model", LOWER_MODEL):
        # Encoder, head, optimizer; or a checkpoint's.
        session = Session.open(
            data, start, env, before_training=check_access if start.complete else None
        )
    if session.is_complete:
        return session.folder
    outputs = RunOutputs(session.folder, env)  # a failure of one loses none of the others
    if session.is_finished:  # a kill came between its results and its end
        results = reopen_results(session)
    else:
        with explain_memory_errors("training", LOWER_BATCH):
            train(session)  # validation picks the model
        outcome, results = conclude(session, held_out)  # calibrate; then score test, once
        results = report_words.add_words(session, results, outcome, outputs)
        results = out_of_scope.add_detector(session, results, outputs)
        write_run_folder(session, results, outcome, outputs)
    delivery.deliver(session, results, outputs)  # trackers, Hub; then it is finished
    return session.folder


def dry_run(recipe: Recipe, listener: SignalListener) -> None:
    """Show what `run` would do: data, plan, learning rates. Loads no weights, writes nothing, and
    runs no code from elsewhere, even where the recipe may.

    Raises:
        InputError, StoppedError: as `run` does.
    """
    whole, first = recipe, ""
    if recipe.run.seeds is not None:
        recipe = seeds.seed_recipes(whole)[0]
        first = f"Seed {recipe.run.seed}, 1 of {len(whole.run.seeds or ())}\n"
    elif recipe.run.folds is not None:
        recipe = cross_validation.fold_recipes(whole)[0]
        first = f"Fold 1 of {whole.run.folds}\n"
    env = RunEnvironment.start(recipe, listener)
    if whole.run.folds is not None:
        env.on_main(lambda: cross_validation.check_folds(whole))
    if first:
        console.print_line(first)
    recipe, start = locate_start(recipe, env)
    with dry_recipe.explain_what_is_left_out(recipe):
        data = prepare_data(dry_recipe.without_effects(recipe), env, purpose="dry run")
    shown = dry_recipe.restore(data.recipe, recipe)
    estimate = env.on_main(lambda: estimate_time(data, env.accelerator.num_processes))
    dry_run_report.print_dry_run(shown, data, start, estimate)


def estimate_time(data: PreparedData, processes: int) -> TimeEstimate | None:
    """How long training would take, from a short pass through an encoder of the same shape; None
    where `train.minutes` says it."""
    table = data.tokens.tables["train"]
    if data.recipe.train.awaits_plan:
        return None  # it is the recipe that says how long
    parts = [
        PlannedTraining(stage.recipe.model.freeze, (stage.end - stage.begin) * batch)
        for stage in plan_stages(data.recipe, len(table))
        if (batch := min(stage.recipe.train.batch_size, stage.rows))
    ]
    config = pretrained.encoder_config(data.tokens.config)
    return estimate_training(config, parts, table, data.plan, processes)


def run_trial(
    recipe: Recipe, listener: SignalListener, on_score: ScoreCallback, data_cache: DataCache
) -> None:
    """A run that only tunes: test is taken out before anything could look at it.

    Args:
        on_score: is told of each scoring of validation, and whether it is the last; may raise to
            end the run there.

    Raises:
        InputError, StoppedError: as `run` does.
    """
    env = RunEnvironment.start(recipe, listener)
    recipe, start = locate_start(recipe, env)
    data = prepare_data(recipe, env, data_cache, start, purpose="trial")
    session = Session.open(data, start, env, on_score)
    train(session)
    session.close()
    env.on_main(lambda: mark_finished(session.folder))  # its checkpoint goes with the trial's end


def range_test(recipe: Recipe, listener: SignalListener) -> lr_finder.LrRangeTest:
    """The range test of a recipe's first stage, and no more of its run.

    Raises:
        InputError, StoppedError: as `run` does.
    """
    recipe = recipe.with_rate("auto")
    with console.CONSOLE.at(console.Verbosity.QUIET):  # until the test itself begins
        env = RunEnvironment.start(recipe, listener)
        recipe, start = locate_start(recipe, env)
        model = assemble(prepare_data(recipe, env, start=start, purpose="range test"), start, env)
    assert model.parts is not None, "a run that only tests rates resumes nothing"
    planned = model.parts.plan.micro_batch_tokens
    return model.builder.find_rate(
        model.stage,
        model.parts,
        lambda step, *how: messages.print_lowered(f"step {step:,}", planned, *how),
    )


def run_seeds(recipe: Recipe, listener: SignalListener) -> Path:
    """A run for each of the recipe's seeds, and their mean and spread; the folder of them all.

    Raises:
        InputError, StoppedError: as `run` does.
    """
    cache, failed, check_home = DataCache(), ProblemList(), partial(seeds.check_home, recipe)
    with failed.collect():
        folders = seeds.run_seeds(
            recipe,
            lambda one: _go_on_after(lambda: run(one, listener, cache, before=check_home), failed),
        )
        home = folders[0].parent
        try:
            if console.CONSOLE.is_main:
                summary = seeds_report.summarize_seeds(recipe, folders)
                seeds_report.write_seeds(summary, home)
                html_report.write_seeds_report(summary, home)
                console_report.print_seeds(summary, home)
        except Exception as error:
            if not failed:  # else what the runs lack is told too
                raise
            failed.append(f"{home}: the summary of its seeds failed: {describe_failure(error)}")
    failed.raise_if_any()
    return home


def run_folds(recipe: Recipe, listener: SignalListener) -> Path:
    """A run for each fold, and one on all rows, which these score; that last one's folder.

    Raises:
        InputError, StoppedError: as `run` does.
    """

    def check_all() -> None:
        if not cross_validation.has_finished(recipe):
            publish.check_access(recipe)
        cross_validation.check_folds(recipe)

    failed = ProblemList()

    def run_one(one: Recipe, out_of_fold: Sequence[Path], is_first: bool) -> Path:
        before = check_all if is_first else None
        return _go_on_after(
            lambda: run(one, listener, out_of_fold=out_of_fold, before=before), failed
        )

    with failed.collect():
        last = cross_validation.run_folds(recipe, run_one)
    failed.raise_if_any()
    return last


def _go_on_after(run_one: Callable[[], Path], failed: ProblemList) -> Path:
    """One of several runs: what could not be made beside its results is told after the others."""
    try:
        return run_one()
    except IncompleteError as error:
        if not error.has_results:
            raise
        failed += error.problems
        return error.folder


def locate_start(recipe: Recipe, env: RunEnvironment) -> tuple[Recipe, Start]:
    """Where the run begins; and the recipe with what an earlier part found."""
    start = env.on_main(
        lambda: resume.locate_start(recipe.run, env.started, env.lock, env.checkpoints)
    )
    messages.print_notes(start.notes)
    return env.on_main(lambda: resume.with_recorded_plan(recipe, start)), start


def prepare_data(
    recipe: Recipe,
    env: RunEnvironment,
    cache: DataCache | None = None,
    start: Start | None = None,
    folds: int | None = None,
    purpose: Literal["run", "dry run", "trial", "range test"] = "run",
) -> PreparedData:
    """Documents → labels and splits → token ids, and a plan that suits them.

    Args:
        folds: train on all rows, and let test be train itself, scored in so many folds.
        start: where the run begins; one that is taken up has what teachers said.
        purpose: what only tunes has no test split; a dry run asks no teacher.

    Raises:
        InputError: for what is wrong with the documents, the encoder, or the recipe for them.
    """
    recipe = for_task(recipe)
    cache, score = cache or DataCache(), recipe.score
    monitor = base_metric(score.monitor, recipe.data.task_weights())
    metrics = env.on_main_first(
        lambda: load_metrics(score.metrics, monitor, score.trust_remote_code)
    )
    console_report.print_source(recipe)
    corpus = prepared_data.load_splits(
        recipe, env.accelerator, cache, folds=folds, test=purpose in ("run", "dry run")
    )
    if corpus.multi_label and corpus.tasks is None:
        recipe = for_task(recipe, multi_label=True)
        names, monitor = recipe.score.metrics, recipe.score.monitor
        metrics = load_metrics(names, monitor, score.trust_remote_code, multi_label=True)
    bind_labels(metrics, corpus.labels, corpus.hierarchy)
    messages.print_notes(validate_stopping(recipe, corpus, is_trial=purpose == "trial"))
    if corpus.tasks is None:
        check_metrics(metrics, len(corpus.labels), corpus.multi_label)
    for task in corpus.tasks or ():
        check_metrics(metrics, len(task.labels))
    env.on_main(lambda: out_of_scope.check_out_of_scope(recipe, corpus))
    assert corpus.train.labels is not None, "train rows without labels are refused"
    labels = corpus.train.labelled_only().labels
    assert labels is not None, "train rows without labels are refused"
    weights = losses.class_weights(recipe.train.class_weights, labels, corpus.labels, corpus.tasks)
    targets = None
    if purpose == "dry run":
        env.on_main(lambda: teacher.check_teachers(recipe, corpus))
    elif recipe.distil.teacher is not None:
        corpus, targets = ask_teachers(recipe, corpus, env, cache, start)
    tokens = prepared_data.tokenize_splits(recipe, corpus, env.accelerator, cache)
    env.on_main(lambda: prepared_data.print_kept_labels(recipe, corpus, tokens.source))
    freezing.validate_freezing(recipe, pretrained.encoder_config(tokens.config))
    console_report.print_data(corpus, tokens.tables, tokens.max_length)
    sharded = env.accelerator.is_fsdp2
    plan = env.plan if sharded else plan_packing(env.plan, recipe, tokens.config)
    audit = audit_reading(recipe, corpus, tokens, plan)
    console_report.print_audit(audit)
    console_report.print_plan(
        recipe, plan, env.accelerator.num_processes, sharded, tokens.tables["train"]
    )
    return PreparedData(recipe, corpus, tokens, metrics, plan, weights, audit, targets)


def audit_reading(
    recipe: Recipe, corpus: Corpus, tokens: TokenizedData, plan: Hardware
) -> Sequence[ReadingOption]:
    """What each way of reading long documents would cut and cost."""
    return audit_truncation(
        corpus.train,
        corpus.labels,
        tokens.tables["train"],
        tokens.reads,
        AuditedEncoder(
            pretrained.encoder_config(tokens.config),
            pretrained.max_positions(tokens.config),
            tokens.tokenizer.num_special_tokens_to_add(),
            plan.micro_batch_tokens,
            recipe.train.batch_size,
        ),
    )


def ask_teachers(
    recipe: Recipe, corpus: Corpus, env: RunEnvironment, cache: DataCache, start: Start | None
) -> tuple[Corpus, TeacherTargets]:
    """What the recipe's teachers say of train, computed once; and the corpus with their labels.

    Raises:
        InputError: where a teacher does not fit the documents.
    """
    is_taken_up = start is not None and (start.point is not None or start.finished)
    folder = start.folder if start is not None and is_taken_up else None
    origin = corpus_hash(corpus), recipe.distil.teachers(), recipe.distil.temperature, folder

    def ask() -> TeacherTargets:
        found = env.on_main(lambda: teacher.consult_teachers(recipe, corpus, folder))
        apply_plan(env.plan)  # the teacher's engine has its own
        return found

    with env.meter("teacher"):
        targets = cache.get("teacher", origin, ask)
    return teacher.label_by_teacher(recipe, corpus, targets), targets


def train(session: Session) -> None:
    """Train, stage by stage; go back to a checkpoint where a run diverges and may.

    Raises:
        StoppedError: after a signal.
        InputError: where it diverged for good, or a checkpoint cannot be written.
    """
    messages.print_training()
    timed_fit = session.env.meter.timed("train", fit)
    with session.checkpointer.stopping, session.checkpointer.finishing():
        session.begin()
        while session.has_steps_left():
            try:
                timed_fit(
                    session.parts.model,
                    session.parts.optimizer,
                    session.builder.training_rows(session.parts),
                    session.schedule(),
                    session.stage.recipe,
                    session.env.accelerator,
                    session.log,
                    session.callbacks(),
                )
            except DivergedError as error:
                session.back_off(error)
