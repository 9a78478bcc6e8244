"""`train.stages` → the stages of a run: which steps, what each trains, and what it trains with.

    stages = plan_stages(recipe, rows)         # one, where the recipe names none
    builder = StageBuilder(data, accelerator)
    built = builder.build(stages[0])           # the model, frozen as the stage says
    parts = builder.set_up(stages[0], *built)  # on every process, with its optimizer
    loop.fit(parts.model, parts.optimizer, builder.training_rows(parts), …)
    parts = builder.continue_with(stages[1], weights)  # a new model, with the weights so far

Each stage has a model of its own, built as that of a run without stages. So nothing of what an
earlier one did to its model (frozen layers that are skipped, gradients that processes wait for) can
stay behind: weights are all that goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from finetune.compute import frozen_cache, fsdp, micro_batch_size, packing
from finetune.compute.accelerator import prepare_training
from finetune.compute.cached_table import has_states
from finetune.compute.checkpointing import enable_checkpointing
from finetune.compute.frozen_prefix import FrozenPrefix, attach_frozen_prefix
from finetune.compute.hardware_plan import Hardware
from finetune.config import schema
from finetune.modeling import build, saved_model, static_encoder
from finetune.modeling.saved_model import Tensors
from finetune.modeling.tokenizer_fit import align_padding
from finetune.runtime import console
from finetune.runtime.distributed import run_on_main_first
from finetune.tokenization.token_table import TokenTable
from finetune.training import lr_finder, time_budget, train_state
from finetune.training.optimizer import build_optimizer
from finetune.training.prepared_data import PreparedData
from finetune.training.row_losses import TeacherLessons, TrainingRows
from finetune.training.sampling import steps_per_epoch
from finetune.training.schedule import total_steps
from finetune.training.step_memory import OnLowered


@dataclass(frozen=True)
class Stage:
    """Some steps of a run.

    Attributes:
        number: counted from 1, of so many (`count`).
        recipe: as the stage has it.
        begin, end: its steps, counted through all stages: begin … end - 1.
        rows: of train.
        passes: over them.
    """

    number: int
    count: int
    recipe: schema.Recipe
    begin: int
    end: int
    rows: int
    passes: float

    @property
    def is_last(self) -> bool:
        return self.number == self.count

    def as_json(self) -> dict[str, Any]:
        """What results.json says of it."""
        return {
            "freeze": self.recipe.model.freeze,
            "lr": self.recipe.optim.lr,
            "steps": self.end - self.begin,
            "first_step": self.begin + 1,
            "epochs": self.passes,
        }


def plan_stages(recipe: schema.Recipe, rows: int) -> tuple[Stage, ...]:
    """The stages of a recipe, in order, for so many train rows; one where it names none."""
    recipes, begin, planned = recipe.by_stage(), 0, []
    for number, one in enumerate(recipes, 1):
        steps = total_steps(rows, one.train)
        passes = steps / steps_per_epoch(rows, one.train.batch_size)
        planned.append(Stage(number, len(recipes), one, begin, begin + steps, rows, passes))
        begin += steps
    return tuple(planned)


def stage_at(stages: Sequence[Stage], done: int) -> Stage:
    """The stage that did the last of the steps done; the first where there are none yet."""
    return next((stage for stage in stages if done <= stage.end), stages[-1])


@dataclass(frozen=True)
class StageParts:
    """What a stage trains with.

    Attributes:
        model, optimizer: prepared by the accelerator.
        bare: the model as it was built, whose class and settings are saved.
        plan: with micro-batches that fit.
        tables: each split's tokens, by its name, with what frozen layers make of them.
        plain: the same without that, for other weights than those of this stage.
    """

    model: torch.nn.Module
    bare: PreTrainedModel
    optimizer: torch.optim.Optimizer
    plan: Hardware
    tables: Mapping[str, TokenTable]
    plain: Mapping[str, TokenTable]


Built = tuple[PreTrainedModel, FrozenPrefix | None]


@dataclass(frozen=True)
class StageBuilder:
    """Makes each stage's parts."""

    data: PreparedData
    accelerator: Accelerator

    def priors(self, recipe: schema.Recipe) -> list[float] | None:
        """What a new multi-label head starts at; None where each row has one label.

        One half each where the loss or the draw of rows makes other shares of the labels, or, as
        generalised cross-entropy does, learns nothing of rows that it finds unlikely.
        """
        shares, train = self.data.corpus.priors(), recipe.train
        if self.data.corpus.tasks is not None:  # under a softmax, as heads of one label a row
            return [0.5] * len(self.data.corpus.labels)
        is_unweighted = train.class_weights is None and train.sampling != "balanced"
        if shares is None or (is_unweighted and train.loss != "generalised_cross_entropy"):
            return shares
        return [0.5] * len(shares)

    def _locate_encoder(self, recipe: schema.Recipe) -> str:
        """The folder or Hub id of the encoder; of `static:…`, that of its static embeddings.

        Raises:
            InputError: as `static_encoder.distil_static` does.
        """
        source, cache = self.data.tokens.source, recipe.cache
        if not recipe.model.is_static:
            return source
        dtype = torch.float32 if self.data.plan.precision == "fp32" else torch.bfloat16
        return static_encoder.distil_static(
            source, recipe.model, cache.folder(), cache.max_bytes(), dtype
        )

    def build(self, stage: Stage) -> Built:
        """A stage's model, with the encoder's own weights; and its frozen start, if it is skipped.

        Raises:
            InputError: as `build.build_classifier` does.
        """
        recipe, how = stage.recipe, stage.recipe.model
        if stage.number > 1 and how.head_init in ("label_names", "keep"):
            zeros = {"head_init": "zeros", "new_labels": "label_names"}
            how = how.model_copy(update=zeros)  # trained weights take its place
        model = run_on_main_first(
            self.accelerator,
            lambda: build.build_classifier(
                self._locate_encoder(recipe),
                how,
                self.data.corpus.labels,
                self.data.plan.attention,
                seed=recipe.run.seed,
                priors=self.priors(recipe),
                ordered=recipe.data.task == "ordered",
                scale=self.data.corpus.number or self.data.corpus.tasks,
            ),
        )
        if recipe.data.hierarchy or getattr(model.config, "hierarchy", None):
            model.config.hierarchy = recipe.data.hierarchy  # whatever the source had
        if packing.is_static(model.config) and how.freeze == "embeddings":
            console.print_wrapped(
                "the static embeddings are frozen, so that the head alone learns; model.freeze "
                "none trains them too",
                mark="  ! ",
            )
        align_padding(model, self.data.tokens.tokenizer)
        self.data.tokens.reads.note(model.config)
        # A sharded layer that is skipped would still be put together for nothing.
        sharded = self.accelerator.is_fsdp2
        frozen = None if sharded else attach_frozen_prefix(model, recipe, stage.passes)
        return model, frozen

    def set_up(
        self, stage: Stage, built: PreTrainedModel, frozen: FrozenPrefix | None
    ) -> StageParts:
        """What `build` made, on every process, with all else that the stage needs.

        Raises:
            InputError: where frozen layers' states cannot be written, or a row does not fit.
        """
        recipe, accelerator = stage.recipe, self.accelerator
        plain: Mapping[str, TokenTable] = self.data.tokens.tables
        tables, bare = {**plain}, built
        packed = self._attach_packing(built)
        if accelerator.is_fsdp2:
            bare = saved_model.weightless_copy(built)
            fsdp.shard_model(accelerator, built)
        if recipe.train.checkpointing == "on" or fsdp.asks_for_checkpointing(accelerator):
            enable_checkpointing(built)
        # Fused optimizers leave fp16's question whether a step overflowed to the device.
        fused = accelerator.device.type == "cuda" and not accelerator.is_fsdp2
        model, optimizer = prepare_training(
            accelerator, built, build_optimizer(built, recipe.optim, fused)
        )
        plan, fitted = packed.apply(self.data.plan), packed.table(tables["train"])
        plan = micro_batch_size.fit_micro_batches(
            plan, model, optimizer, fitted, accelerator, recipe.train
        )
        if frozen is not None:
            again = {name: t for name, t in tables.items() if name != "test"}  # scored once
            tables |= frozen_cache.fill_cache(frozen, model, again, recipe, plan, accelerator)
        boundary = 0 if frozen is None else frozen.boundary
        tables, plain = (
            {name: packed.table(table, boundary) for name, table in each.items()}
            for each in (tables, plain)
        )
        return StageParts(model, bare, optimizer, plan, tables, plain)

    def _attach_packing(self, built: PreTrainedModel) -> packing.Packing:
        """Teach a model packed rows, where the plan has them.

        Before `prepare_training`, after which it computes in 16 bits: the trial is in fp32.
        """
        plan = self.data.plan
        if not plan.packed:
            return packing.leave_padded(built, plan.device)
        built.to(self.accelerator.device)
        packed = packing.attach_packing(built, plan.precision)
        if packed.why_not is not None:
            console.print_wrapped(f"rows padded: {packed.why_not}", mark="       ")
        return packed

    def training_rows(self, parts: StageParts) -> TrainingRows:
        """Train, as the loop takes it."""
        train = self.data.corpus.train
        assert train.labels is not None, "train rows without labels are refused"
        corpus = self.data.corpus
        scale = corpus.tasks if corpus.number is None else corpus.number.deviation
        return TrainingRows(
            parts.tables["train"],
            train.labels,
            parts.plan.micro_batch_tokens,
            self.data.class_weights,
            train.shares,
            train.weights,
            self._lessons(),
            scale,
        )

    def _lessons(self) -> TeacherLessons | None:
        """What the loss takes of teachers."""
        targets, distil = self.data.teacher, self.data.recipe.distil
        if targets is None:
            return None
        parts = np.full(len(targets.probabilities), distil.weight)
        own = self.data.corpus.train.is_labelled
        if own is not None:
            parts[~own] = 1.0  # there is nothing else to learn from
        return TeacherLessons(targets.probabilities, parts, distil.temperature)

    def find_rate(
        self, stage: Stage, parts: StageParts, on_lowered: OnLowered
    ) -> lr_finder.LrRangeTest:
        """A peak learning rate for a stage that is about to begin.

        Args:
            on_lowered: is told where a step of the test ran out of memory.
        """
        rows = self.training_rows(parts)
        lr_finder.announce_range_test(len(rows.table), stage.recipe)
        return lr_finder.run_range_test(
            parts.model, parts.optimizer, rows, stage.recipe, self.accelerator, on_lowered
        )

    def measure_speed(
        self, stage: Stage, parts: StageParts, on_lowered: OnLowered
    ) -> time_budget.Speed:
        """How fast a stage that is about to begin will be.

        Args:
            on_lowered: is told where one of the steps ran out of memory.
        """
        rows = self.training_rows(parts)
        speed = time_budget.measure_speed(
            parts.model, parts.optimizer, rows, stage.recipe, self.accelerator, on_lowered
        )
        if not has_states(rows.table):
            return speed
        whole = time_budget.measure_scoring(
            parts.model, parts.plain["train"], self.accelerator, parts.plan.micro_batch_tokens
        )
        return replace(speed, whole=whole)

    def continue_with(self, stage: Stage, weights: Tensors) -> StageParts:
        """The parts of a later stage.

        Args:
            weights: the main process's, all that training has changed so far.

        Raises:
            InputError: as `set_up` does.
        """
        self.accelerator.free_memory()  # of the stage before
        built, frozen = self.build(stage)
        train_state.load_weights(built, weights, self.accelerator, partly=True)
        return self.set_up(stage, built, frozen)
