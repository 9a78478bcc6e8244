"""An encoder that is being adapted: what it trains with, and what happens between steps.

session = Session.open(prepared, start, env)
session.train()
session.scores()       # of the held-out rows: before, on the way, after
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import set_seed
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from finetune.adaptation.documents import Documents, TokenRows
from finetune.adaptation.perplexity import HeldOutScore, measure_loss
from finetune.adaptation.settings import Settings
from finetune.compute import micro_batch_size, packing
from finetune.compute.accelerator import prepare_training
from finetune.compute.hardware_plan import Hardware
from finetune.config.schema import LEAST_STEPS, Recipe
from finetune.modeling.masked_language_model import MaskedLanguageModel
from finetune.modeling.saved_model import Tensors, weights_hash
from finetune.runtime import heartbeat
from finetune.runtime.console import print_line, print_wrapped
from finetune.runtime.errors import StoppedError
from finetune.runtime.wording import count_of
from finetune.training import messages, run_identity, time_budget, train_state
from finetune.training.checkpointer import Checkpointer
from finetune.training.event_log import EventLog
from finetune.training.loop import Callbacks, fit
from finetune.training.masking import MaskedRows, Masking, hold_masks
from finetune.training.optimizer import build_optimizer
from finetune.training.run_environment import RunEnvironment
from finetune.training.run_state import RunState
from finetune.training.schedule import Schedule, total_steps
from finetune.training.stages import StageParts
from finetune.training.train_log import TrainLog

SCORINGS = 5  # of the held-out rows, where steps or epochs are given


@dataclass(frozen=True)
class Prepared:
    """What is known before the first step.

    Attributes:
        settings: as they were asked for.
        recipe: with what follows from the documents.
        documents, rows: texts and tokens.
        masking: of the rows.
        tokenizer: as it is saved.
        model: on the CPU; and whether its head is new.
        original, unreached: as of `masked_language_model.read_unreached`.
    """

    settings: Settings
    recipe: Recipe
    documents: Documents
    rows: TokenRows
    masking: Masking
    tokenizer: PreTrainedTokenizerBase
    model: MaskedLanguageModel
    is_head_new: bool
    plan: Hardware
    original: PretrainedConfig
    unreached: Tensors


class Session:
    """Training, and what happens between its steps."""

    def __init__(self, prepared: Prepared, env: RunEnvironment) -> None:
        self.prepared, self.env = prepared, env
        self.recipe, self.folder = prepared.recipe, prepared.settings.output
        self.identity = self._identify()
        set_seed(self.recipe.run.seed, device_specific=True)
        self.parts = self._set_up()
        tables = self.parts.tables
        self.rows = MaskedRows(
            tables["train"], self.parts.plan.micro_batch_tokens, prepared.masking
        )
        self.held_out = hold_masks(tables["validation"], prepared.masking, env.accelerator.device)
        self.state = RunState()
        self.state.trained = train_state.trained_names(self.parts.model, env.accelerator)
        self.log = TrainLog(env.accelerator, self.recipe.optim.max_grad_norm)
        self.events = EventLog(self.folder, env.accelerator)
        self.checkpointer = Checkpointer(
            self.recipe, env, self.folder, self.state, self.events, self.identity
        )

    def _identify(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to belong to this run."""
        prepared, model = self.prepared, self.prepared.model
        identity = run_identity.run_identity(
            self.recipe,
            prepared.documents.corpus(),
            model,
            tokens=run_identity.tokens_hash(prepared.rows.tables),
            start=weights_hash(dict(model.named_parameters())),
            ends=[],
            derived=[],
        )
        return identity | {"recipe": {**identity["recipe"], "adapt": prepared.settings.own}}

    def _set_up(self) -> StageParts:
        """Model and optimizer on the device, and rows as its layers take them.

        Raises:
            InputError: where a row does not fit.
        """
        built, accelerator, recipe = self.prepared.model, self.env.accelerator, self.recipe
        plan, device = self.prepared.plan, accelerator.device
        packed = packing.leave_padded(built, plan.device)
        if plan.packed:  # before it is prepared, after which it computes in 16 bits
            packed = packing.attach_packing(built.to(device), plan.precision)
        optimizer = build_optimizer(built, recipe.optim, fused=device.type == "cuda")
        model, optimizer = prepare_training(accelerator, built, optimizer)
        tables = {name: packed.table(table) for name, table in self.prepared.rows.tables.items()}
        train = tables["train"]
        most = np.argsort(-train.padded_tokens, kind="stable")[: plan.micro_batch_tokens]
        tried = self.prepared.masking.mask(train.take(most), [0])
        plan = micro_batch_size.fit_micro_batches(
            packed.apply(plan), model, optimizer, tried, accelerator, recipe.train
        )
        return StageParts(model, built, optimizer, plan, tables, tables)

    # --- before the first step --------------------------------------------------------------------

    def start(self, point: Path | None) -> None:
        """Begin, or go on from a checkpoint.

        Raises:
            InputError: where the checkpoint is damaged, or is of other settings, documents or
                weights; where `--minutes` leave no time for a step.
        """
        if point is not None:
            notes = self.checkpointer.restore(point, self.parts, self.log)
            messages.print_resumed(point, self.log.steps, self.schedule().end, notes)
            return
        self.env.on_main(lambda: self.events.file.unlink(missing_ok=True))
        self.validate(0)
        if self.recipe.train.awaits_plan:
            self._plan_time()

    def _plan_time(self) -> None:
        """Time some steps, undo them, and see how many `--minutes` are enough for."""
        train = self.recipe.train
        assert train.minutes is not None
        with self.env.meter("plan"):
            speed = time_budget.measure_speed(
                self.parts.model,
                self.parts.optimizer,
                self.rows,
                self.recipe,
                self.env.accelerator,
                self._note_lowered,
            )
        tokens = int(self.held_out.table.lengths.sum())
        weights = sum(p.numel() * p.element_size() for p in self.parts.bare.parameters())
        budget = time_budget.Budget(train.minutes, self.env.meter.total(), tokens, 0, weights)
        most = time_budget.most_steps(len(self.rows.table), train)
        plan = self.env.on_main(
            lambda: time_budget.plan_steps(budget, speed, self.recipe.score, most, fewest=1)
        )
        self.recipe = self.recipe.with_steps(plan.steps, plan.scored_every)
        sections = {**self.recipe.model_dump(mode="json"), "adapt": self.prepared.settings.own}
        self.identity = {**self.identity, "recipe": sections}
        self.checkpointer.identity = self.identity
        print_wrapped(_describe_plan(plan, train.minutes, speed.step), mark="Time    ")
        self.events.write("time_plan", 0, dataclasses.asdict(plan))

    # --- steps ------------------------------------------------------------------------------------

    def schedule(self) -> Schedule:
        """The steps, and their learning rates."""
        return Schedule.of(self.recipe, len(self.rows.table))

    def train(self) -> None:
        """All steps that are left.

        Raises:
            StoppedError: after a signal.
            DivergedError: where a loss is not finite.
        """
        schedule = self.schedule()
        with self.checkpointer.stopping, self.checkpointer.finishing():
            self.checkpointer.restart_clock()
            if self.log.steps >= schedule.end:
                return
            with self.env.meter("train"):
                fit(
                    self.parts.model,
                    self.parts.optimizer,
                    self.rows,
                    schedule,
                    self.recipe,
                    self.env.accelerator,
                    self.log,
                    self._callbacks(schedule.end),
                )

    def _callbacks(self, end: int) -> Callbacks:
        def after_step(step: int, scored: bool) -> bool:
            heartbeat.note("train", step)
            signal, due = self.checkpointer.is_due(step, scored=scored, last=step == end)
            if due:
                self.checkpointer.save(self.parts, self.log)
            if signal:
                self.checkpointer.wait()
                raise StoppedError.after_step(signal, step, self.folder)
            return False

        timed = self.env.meter.timed
        return Callbacks(
            log=lambda step, line: self.events.write("train", step, line),
            validate=timed("validate", self.validate),
            after_step=timed("checkpoint", after_step),
            lowered=self._note_lowered,
        )

    def _note_lowered(self, step: int, tokens: int, recomputes: bool) -> None:
        before = self.parts.plan.micro_batch_tokens
        messages.print_lowered(f"step {step:,}", before, tokens, recomputes)
        plan = dataclasses.replace(self.parts.plan, micro_batch_tokens=tokens)
        self.parts = dataclasses.replace(self.parts, plan=plan)
        self.state.micro_batch_tokens = tokens

    def validate(self, step: int) -> None:
        """Score the held-out rows, and write a line of it."""
        loss = measure_loss(
            self.parts.model,
            self.held_out,
            self.env.accelerator,
            self.parts.plan.micro_batch_tokens,
        )
        score = HeldOutScore(step, loss)
        self.events.write("validation", step, score.as_json())
        print_line(f"  held out, after step {step:,}: perplexity {score.perplexity:,.2f}")

    def scores(self) -> list[HeldOutScore]:
        """All scores of the held-out rows so far, the first before any step. On one process."""
        lines = self.events.file.read_text(encoding="utf-8").splitlines()
        found: list[Mapping[str, Any]] = [json.loads(line) for line in lines]
        return [
            HeldOutScore(line["step"], math.inf if line["loss"] is None else line["loss"])
            for line in found
            if line["kind"] == "validation"
        ]


def with_scorings(recipe: Recipe, rows: int) -> Recipe:
    """The recipe, whose held-out rows are scored so many times on the way, where it says how long
    it is."""
    if recipe.train.awaits_plan:
        return recipe
    every = -(-total_steps(rows, recipe.train) // SCORINGS)
    score = recipe.score.model_copy(update={"every": every})
    return recipe.model_copy(update={"score": score})


def _describe_plan(plan: time_budget.TimePlan, minutes: float, step: float) -> str:
    """The steps that there is time for, and where they are few."""
    time = "1 minute" if minutes == 1 else f"{minutes:g} minutes"
    text = f"{count_of(plan.steps, 'step')} of {step:,.2f} s each in {time}"
    _, scored, closing = plan.seconds
    if plan.is_capped:
        text += "; more passes over the documents would repeat what has been learnt"
    elif plan.steps < LEAST_STEPS:
        text += (
            f"; the rest is for what came before, for scoring held-out documents ({scored:,.0f} s) "
            f"and for saving ({closing:,.0f} s). So few steps bring little: allow more --minutes"
        )
    return text
