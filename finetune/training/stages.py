"""`train.stages` → the stages of a run: which steps, what each trains, and what it trains with.

    stages = of(recipe, rows)                  # one, where the recipe names none
    builder = Builder(source, corpus, tables, reads, plan, accelerator)
    built = builder.build(stages[0])           # the model, frozen as the stage says
    parts = builder.set_up(stages[0], *built)  # spread over the processes, with its optimizer
    loop.fit(parts.model, parts.optimizer, …, stages[0].choices, begin=stages[0].begin)
    parts = builder.go_on(stages[1], weights)  # a new model, with the weights so far

Each stage has a model of its own, built as that of a run without stages. So nothing of what an
earlier one did to its model (frozen layers that are skipped, gradients that processes wait for) can
stay behind: weights are all that goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from finetune.compute import frozen_cache, fsdp, memory, micro_batches, packing
from finetune.compute.hardware_plan import Hardware
from finetune.config import schema
from finetune.data.corpus import Corpus
from finetune.modeling import build as build_module
from finetune.modeling import saved_model
from finetune.modeling.saved_model import Tensors
from finetune.runtime.distributed import run_on_main, run_on_main_first
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import TokenTable
from finetune.training import checkpoint, loop, losses, lr_finder, train_state
from finetune.training import optimizer as optimizer_module


@dataclass(frozen=True)
class Stage:
    """Some steps of a run.

    Attributes:
        number: counted from 1, of so `many`.
        choices: the recipe as the stage has it.
        begin, end: its steps, counted through all stages: begin … end - 1.
        rows: of train.
        passes: over them.
    """

    number: int
    many: int
    choices: schema.Recipe
    begin: int
    end: int
    rows: int
    passes: float

    @property
    def is_last(self) -> bool:
        return self.number == self.many

    def as_json(self) -> dict[str, Any]:
        """What results.json says of it."""
        return {
            "freeze": self.choices.model.freeze,
            "lr": self.choices.optim.lr,
            "steps": self.end - self.begin,
            "first_step": self.begin + 1,
            "epochs": self.passes,
        }


def plan_stages(choices: schema.Recipe, rows: int) -> tuple[Stage, ...]:
    """The stages of a recipe, in order, for so many train rows; one where it names none."""
    recipes, begin, found = choices.by_stage(), 0, []
    for number, one in enumerate(recipes, 1):
        steps = loop.total_steps(rows, one.train)
        passes = steps / micro_batches.steps_per_epoch(rows, one.train.batch_size)
        found.append(Stage(number, len(recipes), one, begin, begin + steps, rows, passes))
        begin += steps
    return tuple(found)


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


Built = tuple[PreTrainedModel, frozen_cache.FrozenPrefix | None]


@dataclass(frozen=True)
class StageBuilder:
    """Makes each stage's parts.

    Attributes:
        source: the encoder's folder or Hub id.
        tables: the tokens of each split, by its name.
    """

    source: str
    corpus: Corpus
    tables: Mapping[str, TokenTable]
    reads: DocumentFormat
    plan: Hardware
    accelerator: Accelerator

    def priors(self, choices: schema.Recipe) -> list[float] | None:
        """What a new head starts at, where a row may have several labels; else None.

        One half each where the loss or the draw of rows makes other shares of the labels, or, as
        generalised cross-entropy does, learns nothing of rows that it finds unlikely.
        """
        found, train = self.corpus.priors(), choices.train
        as_they_are = train.class_weights is None and train.sampling != "balanced"
        if found is None or (as_they_are and train.loss != "generalised_cross_entropy"):
            return found
        return [0.5] * len(found)

    def build(self, stage: Stage) -> Built:
        """A stage's model, with the encoder's own weights; and its frozen start, if it is skipped.

        Raises:
            InputError: as `build.build_classifier` does.
        """
        choices, how = stage.choices, stage.choices.model
        if stage.number > 1 and how.head_init == "names":
            how = how.model_copy(update={"head_init": "zeros"})  # trained weights take its place
        made = run_on_main_first(
            self.accelerator,
            lambda: build_module.build_classifier(
                self.source,
                how,
                self.corpus.labels,
                self.plan.attention,
                seed=choices.run.seed,
                priors=self.priors(choices),
            ),
        )
        self.reads.note(made.config)
        # A sharded layer that is skipped would still be put together for nothing.
        sharded = self.accelerator.is_fsdp2
        return made, None if sharded else frozen_cache.attach_frozen_prefix(
            made, choices, stage.passes
        )

    def set_up(
        self, stage: Stage, made: PreTrainedModel, frozen: frozen_cache.FrozenPrefix | None
    ) -> StageParts:
        """What `build` made, spread over the processes, with all else that the stage needs.

        Raises:
            InputError: where frozen layers' states cannot be written, or a row does not fit.
        """
        choices, accelerator, tables = stage.choices, self.accelerator, {**self.tables}
        bare = made
        if accelerator.is_fsdp2:
            bare = saved_model.weightless_copy(made)
            fsdp.shard_model(accelerator, made)
        prepared, optimizer = accelerator.prepare(
            made, optimizer_module.build_optimizer(made, choices.optim)
        )
        plan = memory.fit_micro_batches(self.plan, prepared, tables["train"], accelerator)
        if frozen is not None:
            again = {name: t for name, t in tables.items() if name != "test"}  # scored once
            tables |= frozen_cache.fill_cache(frozen, prepared, again, choices, plan, accelerator)
        plain = self.tables
        if plan.packed:
            packing.attach_packed_layers(bare)
            boundary = 0 if frozen is None else frozen.boundary
            tables, plain = (
                {name: packing.PackedTable.of(table, boundary) for name, table in each.items()}
                for each in (tables, plain)
            )
        return StageParts(prepared, bare, optimizer, plan, tables, plain)

    def find_rate(self, stage: Stage, parts: StageParts) -> lr_finder.LrRangeTest:
        """A peak learning rate for a stage that is about to begin."""
        train = self.corpus.train
        assert train.labels is not None
        lr_finder.announce_range_test(len(train), stage.choices)
        return lr_finder.run_range_test(
            parts.model,
            parts.optimizer,
            parts.tables["train"],
            train.labels,
            stage.choices,
            parts.plan.micro_batch_tokens,
            self.accelerator,
            losses.class_weights(
                stage.choices.train.class_weights, train.labels, self.corpus.labels
            ),
        )

    def go_on(self, stage: Stage, weights: Tensors) -> StageParts:
        """The parts of a later stage.

        Args:
            weights: the main process's, all that training has changed so far.

        Raises:
            InputError: as `set_up` does.
        """
        self.accelerator.free_memory()  # of the stage before
        made, frozen = self.build(stage)
        train_state.load_weights(made, weights, self.accelerator, partly=True)
        return self.set_up(stage, made, frozen)


def checkpoint_weights(point: Path, accelerator: Accelerator) -> Tensors:
    """All that training had changed when a checkpoint was written, for the main process.

    Raises:
        InputError: where the checkpoint is damaged.
    """
    found: Tensors = {}
    run_on_main(
        accelerator,
        lambda: found.update(train_state.weights_in(checkpoint.read_checkpoint(point)[0])),
    )
    return found
