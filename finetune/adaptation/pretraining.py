"""The story of `finetune adapt`: documents → tokens → masked language model → encoder, in order."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from finetune.adaptation import documents as documents_module
from finetune.adaptation import outputs
from finetune.adaptation.documents import Documents
from finetune.adaptation.session import Prepared, Session, with_scorings
from finetune.adaptation.settings import NEW_HEAD_SCALE, Settings
from finetune.compute import packing
from finetune.config.schema import Recipe
from finetune.modeling import masked_language_model, pretrained
from finetune.modeling.masked_language_model import MaskedLanguageModel
from finetune.modeling.model_folder import find_model
from finetune.runtime.console import print_line, print_wrapped
from finetune.runtime.errors import InputError, explain_write_errors
from finetune.runtime.memory_errors import LOWER_BATCH, explain_memory_errors
from finetune.runtime.signals import SignalListener
from finetune.runtime.wording import count_of
from finetune.training import checkpoint, resume
from finetune.training.masking import Masking
from finetune.training.run_environment import RunEnvironment
from finetune.training.run_folder import Start
from finetune.training.train_log import DivergedError


def adapt_encoder(settings: Settings, listener: SignalListener) -> Path:
    """Adapt an encoder to documents; the folder with it.

    Raises:
        InputError: for what the user can fix.
        StoppedError: after a signal.
    """
    check_output(settings)
    env = RunEnvironment.start(settings.recipe, listener)
    if env.accelerator.is_fsdp2:
        raise InputError(
            "finetune adapt: expected whole weights on each process, got FSDP; leave it out of the "
            "launcher's settings"
        )
    if settings.resume and outputs.is_finished(settings.output):
        print_line(f"{settings.output} is finished already")
        return settings.output
    prepared, point = prepare(settings, env)
    env.on_main(partial(_claim, settings, env))
    with explain_memory_errors("building the model", LOWER_BATCH):
        session = Session(prepared, env)
    _print_model(session)
    with explain_memory_errors("training", LOWER_BATCH):
        try:
            session.start(point)
            print_line("Training (loss ± its standard error over the rows since the last line)")
            session.train()
        except DivergedError as error:
            raise InputError(f"{error}; lower --lr, and start anew in another --output") from None
    env.on_main(lambda: outputs.write_outputs(session))
    return settings.output


def check_output(settings: Settings) -> None:
    """
    Raises:
        InputError: where the folder holds something, and is not to be gone on with.
    """
    folder = settings.output
    if folder.is_dir() and any(folder.iterdir()) and not settings.resume:
        unfinished = outputs.is_begun(folder) and not outputs.is_finished(folder)
        remedy = ", or add --resume to go on with what was stopped there" * unfinished
        raise InputError(f"--output: {folder} is not empty; choose another folder{remedy}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output: expected a folder, or a name that is free, got {folder}")
    if settings.resume and not (outputs.is_begun(folder) or outputs.is_finished(folder)):
        raise InputError(
            f"--resume: {folder} holds nothing that was stopped; leave --resume out to start anew"
        )


def _claim(settings: Settings, env: RunEnvironment) -> None:
    """Make the folder, and keep other processes out of it.

    Raises:
        InputError: where it cannot be written, or another process is at work in it.
    """
    folder = settings.output
    with explain_write_errors(folder, remedy="set --output to"):
        folder.mkdir(parents=True, exist_ok=True)
        env.lock.take(folder)
        checkpoint.remove_leftovers(folder)
    outputs.mark_begun(settings)


def prepare(settings: Settings, env: RunEnvironment) -> tuple[Prepared, Path | None]:
    """Documents, tokens and model, and the checkpoint to go on from.

    Raises:
        InputError: for what is wrong with the documents, or the encoder for them.
    """
    recipe = settings.recipe
    if recipe.model.is_static:
        raise InputError(
            f"ENCODER: expected an encoder with layers, got '{recipe.model.source}'; adapt the "
            "encoder itself, and put 'static:' before the adapted one in the recipe"
        )
    # One process tells; all read the same.
    tell = partial(print_wrapped, mark="  ! ")
    source = find_model(recipe.model.source, "model.source")
    config = env.on_main_first(lambda: pretrained.load_config(source, recipe.model))
    masked_language_model.check_language_model(pretrained.read_config(source, recipe.model), source)
    tokenizer = env.on_main_first(lambda: pretrained.load_tokenizer(source, recipe.model))
    masking = Masking.of_tokenizer(
        tokenizer,
        fraction=settings.mask_fraction,
        replacement=settings.replacement,
        seed=recipe.run.seed,
    )
    documents = env.on_main_first(lambda: _read(settings, tell))
    rows = env.on_main_first(
        lambda: documents_module.tokenize(documents, recipe, config, tokenizer, masking)
    )
    _print_documents(settings, documents, rows.tables)
    point = env.on_main(lambda: _find_point(settings, env))
    recipe = with_scorings(recipe, len(rows.tables["train"]))
    if point is not None:
        recipe = env.on_main(lambda: _as_recorded(recipe, settings.output, point))
    original, unreached = masked_language_model.read_unreached(source, recipe.model)
    model, is_new = _load(source, recipe, env, rows.counts)
    scale = NEW_HEAD_SCALE if is_new else 1.0
    optim = recipe.optim.model_copy(update={"head_lr_scale": scale})
    recipe = recipe.model_copy(update={"optim": optim})
    plan = packing.plan_packing(env.plan, recipe, config)
    return (
        Prepared(
            settings,
            recipe,
            documents,
            rows,
            masking,
            tokenizer,
            model,
            is_new,
            plan,
            original,
            unreached,
        ),
        point,
    )


def _read(settings: Settings, tell: Callable[[str], None]) -> Documents:
    sources = documents_module.find_documents(settings, tell)
    return documents_module.read_documents(settings, sources, tell)


def _load(
    source: str, recipe: Recipe, env: RunEnvironment, counts: np.ndarray
) -> tuple[MaskedLanguageModel, bool]:
    frequencies = masked_language_model.log_frequencies(counts)
    return env.on_main_first(
        lambda: masked_language_model.load_language_model(
            source, recipe.model, env.plan.attention, frequencies, recipe.run.seed
        )
    )


def _find_point(settings: Settings, env: RunEnvironment) -> Path | None:
    """The newest whole checkpoint; None where there is none, or none is asked for.

    Raises:
        InputError: where all that there are are damaged.
    """
    if not settings.resume:
        return None
    damages: list[str] = []
    for point in checkpoint.list_checkpoints(settings.output):
        try:
            env.checkpoints.read(point)
        except InputError as error:
            damages += error.problems
            continue
        return point
    if damages:
        raise InputError(damages)
    return None


def _as_recorded(recipe: Recipe, folder: Path, point: Path) -> Recipe:
    """The recipe, with what a run that goes on has found: its steps, and when it scores."""
    recipe = resume.with_recorded_plan(recipe, Start(folder, point))
    recorded = checkpoint.read_plain(point)["identity"]["recipe"]["score"]["every"]
    score = recipe.score.model_copy(update={"every": recorded})
    return recipe.model_copy(update={"score": score})


def _print_documents(settings: Settings, documents: Documents, tables: outputs.Tables) -> None:
    train, held_out = documents.train, documents.held_out
    rows = tables["train"]
    print_wrapped(
        f"{count_of(len(train), 'document')} to learn from, in {len(rows):,} rows of "
        f"{int(rows.lengths.sum()):,} tokens; {count_of(len(held_out), 'document')} held out",
        mark="Data    ",
    )


def _print_model(session: Session) -> None:
    prepared = session.prepared
    how = "all of them masked"
    if prepared.settings.replacement == "mixed":
        how = "80 % of them masked, 10 % replaced by others, 10 % as they are"
    print_wrapped(
        f"{prepared.settings.encoder}; each step asks for "
        f"{100 * prepared.masking.fraction:g} % of the tokens, {how}",
        mark="Encoder ",
    )
    if prepared.is_head_new:
        print_wrapped(
            "the encoder comes without a language model's head: a new one starts from how often "
            "each token occurs in the documents, and the perplexity before training is its own",
            mark="  ! ",
        )
    for reason in session.parts.plan.reasons:
        print_wrapped(reason, mark="       ")
