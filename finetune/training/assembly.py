"""Prepared data → the model and optimizer that a run begins or goes on with; writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

from finetune.compute import frozen_cache
from finetune.data.corpus import corpus_hash, split_hash
from finetune.modeling import build
from finetune.modeling.saved_model import Tensors
from finetune.training import checkpoint, resume, run_identity, stages, train_state
from finetune.training.prepared_data import PreparedData
from finetune.training.resolution import Resolution
from finetune.training.run_environment import RunEnvironment
from finetune.training.run_folder import Start
from finetune.training.stages import Stage, StageBuilder, StageParts


@dataclass(frozen=True)
class AssembledModel:
    """What a run trains with, before it has a folder.

    Attributes:
        start: where the run begins.
        stages, stage: of the run, and the one under way.
        parts: what that stage trains with; None where the folder holds this run, finished.
        resolution: what `auto` came to.
        identity: what must be the same for a checkpoint to belong to this run.
        hashes: of data, tokens and the weights to begin with.
    """

    data: PreparedData
    start: Start
    stages: Sequence[Stage]
    stage: Stage
    builder: StageBuilder
    parts: StageParts | None
    resolution: Resolution
    identity: Mapping[str, Any]
    hashes: Mapping[str, str]


def assemble(data: PreparedData, start: Start, env: RunEnvironment) -> AssembledModel:
    """Build the model of the stage under way, frozen as that stage says, and its optimizer.

    Raises:
        InputError: where the encoder does not fit, or the folder holds another run.
    """
    recipe, corpus, tokens = data.recipe, data.corpus, data.tokens
    all_stages = stages.plan_stages(recipe, len(corpus.train))
    done = 0 if start.point is None else checkpoint.step_of(start.point)
    stage = stages.stage_at(all_stages, done)
    builder = StageBuilder(data, env.accelerator)
    classifier, frozen = builder.build(stage)
    hashes = {
        "data": corpus_hash(corpus),
        "validation": split_hash(corpus.validation),
        "test": split_hash(corpus.test),
        "tokens": run_identity.tokens_hash(tokens.tables),
        "first_weights": build.initial_weights_hash(
            classifier, recipe.model, from_priors=builder.priors(recipe) is not None
        ),
    }
    keeps_states = frozen is not None or stage.count > 1  # of several stages, some may
    states = frozen_cache.cache_dtype(recipe, data.plan) if keeps_states else "off"
    resolution = Resolution.of(recipe, data.plan, tokens.max_length, states, classifier)
    resolved = resolution.apply(recipe)
    identity = run_identity.run_identity(
        resolved,
        corpus,
        classifier,
        tokens=hashes["tokens"],
        start=hashes["first_weights"],
        ends=[one.end for one in all_stages if not one.is_last],
        derived=["cache.frozen_states"] if recipe.cache.frozen_states == "auto" else [],
    )
    parts = None
    steps = all_stages[-1].end
    if not env.on_main(lambda: resume.has_nothing_left(start, resolved, identity, steps)):
        set_seed(recipe.run.seed, device_specific=True)  # dropout differs between processes
        if start.point is not None and stage.number > 1:
            # The layers that this stage freezes may have been trained by an earlier one.
            weights = checkpoint_weights(start.point, env)
            train_state.load_weights(classifier, weights, env.accelerator, partly=True)
        parts = builder.set_up(stage, classifier, frozen)
    return AssembledModel(
        data, start, all_stages, stage, builder, parts, resolution, identity, hashes
    )


def checkpoint_weights(point: Path, env: RunEnvironment) -> Tensors:
    """All that training had changed when a checkpoint was written, on the main process.

    Raises:
        InputError: where the checkpoint is damaged.
    """
    weights: Tensors = {}

    def read() -> None:
        weights.update(train_state.weights_in(env.checkpoints.read_tensors(point)))

    env.on_main(read)
    return weights
