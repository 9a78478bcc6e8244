"""A run under way: its model and optimizer, its stage, and what happens between steps.

session = Session.open(data, start, env)
while session.has_steps_left():
    fit(session.parts.model, …, session.callbacks())
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from finetune.config.schema import Recipe
from finetune.data import checks
from finetune.modeling import saved_model
from finetune.modeling.saved_model import Tensors
from finetune.runtime import heartbeat
from finetune.runtime.atomic_files import write_json
from finetune.runtime.console import print_line
from finetune.runtime.errors import StoppedError
from finetune.training import (
    checkpoint,
    folder_mark,
    lr_finder,
    messages,
    run_folder,
    stages,
    time_budget,
    trackers,
    train_state,
)
from finetune.training.assembly import AssembledModel, assemble, checkpoint_weights
from finetune.training.checkpointer import Checkpointer
from finetune.training.event_log import EventLog
from finetune.training.loop import Callbacks
from finetune.training.prepared_data import PreparedData
from finetune.training.run_environment import RunEnvironment
from finetune.training.run_folder import Start
from finetune.training.run_state import RunState
from finetune.training.schedule import Schedule
from finetune.training.stages import Stage, StageParts
from finetune.training.step_memory import OnLowered
from finetune.training.teacher_targets import write_targets
from finetune.training.train_log import DivergedError, TrainLog
from finetune.training.validator import ScoreCallback, Validator
from finetune.training.weight_average import averaged_weights

BACK_OFFS = 5  # at most; 1/32 of a rate that is too high is no rate to go on searching below


class Session:
    """A run with its folder.

    Attributes:
        recipe: with the learning rates that range tests have found.
        stages, stage: of the run, and the one under way.
        parts: what the stage trains with.
        is_finished: whether the folder holds this run, trained and scored: then nothing is to be
            used but the folder and the trackers.
        is_complete: whether nothing is left to do there.
    """

    def __init__(
        self, model: AssembledModel, env: RunEnvironment, on_score: ScoreCallback | None
    ) -> None:
        self.data, self.env, self.folder = model.data, env, model.start.folder
        self.recipe, self.resolution = model.data.recipe, model.resolution
        self.stages, self.stage, self.builder = model.stages, model.stage, model.builder
        self.hashes, self.identity = model.hashes, model.identity
        self.is_finished = model.parts is None
        self.is_complete = self.is_finished and model.start.complete
        if model.parts is None:
            return
        self.parts: StageParts = model.parts
        self.state = RunState()
        self._claim_folder(model.start)
        self.log = TrainLog(env.accelerator, self.recipe.optim.max_grad_norm)
        self.events = EventLog(self.folder, env.accelerator)
        self.validator = Validator(self.data, env, self.folder, self.state, self.events, on_score)
        self.checkpointer = Checkpointer(
            self.recipe, env, self.folder, self.state, self.events, self.identity
        )

    @classmethod
    def open(
        cls,
        data: PreparedData,
        start: Start,
        env: RunEnvironment,
        on_score: ScoreCallback | None = None,
        before_training: Callable[[], None] | None = None,
    ) -> "Session":
        """Build the model, claim the folder, and go on from a checkpoint where there is one.

        Args:
            on_score: is told of each scoring of validation; may raise to end the run there.
            before_training: refuses what would fail after it, on the main process; is called
                before the folder is changed, and only where there is something to train.

        Raises:
            InputError: where the encoder does not fit; where the folder cannot be written; where
                the checkpoint is damaged, or belongs to another recipe, data or model.
        """
        model = assemble(data, start, env)
        if model.parts is not None and before_training is not None:
            env.on_main(before_training)
        session = cls(model, env, on_score)
        if session.is_complete:
            messages.print_finished(session.folder)
            return session
        if session.is_finished:
            messages.print_completed(session.folder)
            return session
        if start.point is not None:
            notes = session.restore(start.point)
            steps = session.stages[-1].end
            messages.print_resumed(start.point, session.log.steps, steps, notes)
        session.find_rate()
        session.plan_time()
        session.open_trackers(session.state.run_id, session.log.steps)
        return session

    def open_trackers(self, run_id: str, step: int) -> None:
        """Begin with the trackers, or go on with what they have of this run up to a step.

        Raises:
            InputError: where one does not start.
        """
        folder, accelerator = self.folder / "trackers", self.env.accelerator
        accelerator.project_configuration.logging_dir = str(folder)
        trackers.start(accelerator, self.recipe, folder, run_id, step)

    def _claim_folder(self, start: Start) -> None:
        env, resolved = self.env, self.resolved_recipe
        self.folder = env.on_main(
            lambda: run_folder.claim_folder(start, self.recipe.run, resolved, env.lock)
        )
        mark = env.on_main(lambda: folder_mark.read_mark(self.folder))
        if mark is not None:
            self.state.run_id = mark.id
        env.on_main(
            lambda: write_json(
                self.folder / "preflight.json", checks.describe_corpus(self.data.corpus)
            )
        )
        targets = self.data.teacher
        if targets is not None:
            env.on_main(lambda: write_targets(targets, self.folder))

    @property
    def resolved_recipe(self) -> Recipe:
        """The recipe as recipe.yaml holds it, which runs this again."""
        return self.resolution.apply(self.recipe)

    # --- stages -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Before the first step of all, or of those after a checkpoint.

        Raises:
            DivergedError: as `validate` does, where no step is left.
        """
        self._settle()
        if self.is_over() and not self.validator.has_kept_a_model(self.log.steps):
            self.validate(self.log.steps)  # the run was made shorter than it had come
        may_back_off = self.recipe.train.on_divergence == "back_off"
        if may_back_off and self.env.on_main(lambda: not self.checkpointer.good_checkpoints()):
            # There is none from when the run was sound: this must do.
            self.state.sound = self.log.steps
            self.checkpointer.save(self.parts, self.log)
        self.checkpointer.restart_clock()

    def is_over(self) -> bool:
        """Whether the run has done all its steps, or has lost patience."""
        return self.log.steps >= self.stages[-1].end or self.validator.is_out_of_patience()

    def has_steps_left(self) -> bool:
        """Whether there are steps to do; where a stage has done its own, the next is entered."""
        if self.is_over():
            return False
        if self.log.steps >= self.stage.end:
            weights = train_state.gather_weights(self.parts.model, self.env.accelerator)
            self._enter(self.stages[self.stage.number], weights)
        return True

    def schedule(self) -> Schedule:
        """The steps of the stage under way, and their learning rates."""
        return Schedule.of(
            self.stage.recipe,
            len(self.data.corpus.train),
            begin=self.stage.begin,
            rate_scale=self.state.rate_scale,
        )

    def _enter(self, stage: Stage, weights: Tensors) -> None:
        """Take up another stage, with the main process's weights."""
        del self.parts  # before the next model is built
        self.stage, self.parts = stage, self.builder.continue_with(stage, weights)
        self.find_rate()
        self._settle()

    def find_rate(self) -> None:
        """Where the stage's learning rate is `auto`, find it by a range test, and save it."""
        if self.stage.recipe.optim.lr != "auto":
            return
        with self.env.meter("find_lr"):
            lowered = self._lowered_during("range test")
            found = self.builder.find_rate(self.stage, self.parts, lowered)
        messages.print_range_test(found, self.stage)
        number = self.stage.number
        self._plan_anew(
            self.recipe.with_rate(found.rate, number),
            lambda: lr_finder.write_range_test(found, self.folder, number),
        )

    def plan_time(self) -> None:
        """Where `train.minutes` is to decide how many steps there are, time some and save the plan.

        Raises:
            InputError: where there is no time for a single step.
        """
        train = self.recipe.train
        if not train.awaits_plan or train.minutes is None:
            return
        with self.env.meter("plan"):
            lowered = self._lowered_during("timed steps")
            speed = self.builder.measure_speed(self.stage, self.parts, lowered)
        budget = time_budget.Budget(
            train.minutes,
            self.env.meter.total(),
            *self._tokens_to_score(),
        )
        most = time_budget.most_steps(self.stage.rows, train)
        plan = self.env.on_main(
            lambda: time_budget.plan_steps(budget, speed, self.recipe.score, most)
        )
        messages.print_time_plan(plan, speed, train.minutes)
        self.events.write("time_plan", 0, dataclasses.asdict(plan))
        self._plan_anew(self.recipe.with_steps(plan.steps, plan.scored_every))

    def _tokens_to_score(self) -> tuple[int, int, int, int]:
        """What `Budget` says of tokens and weights: as `finalize` scores them."""
        corpus, tables = self.data.corpus, self.data.tokens.tables
        train, validation, test = (
            int(tables[name].lengths.sum()) if name in tables else 0
            for name in ("train", "validation", "test")
        )
        # The folds' runs have scored the rows; a source whose head is kept is scored, too.
        test *= (corpus.folds is None) + (self.recipe.model.head_init == "keep")
        closing = validation
        chooses = corpus.multi_label and corpus.tasks is None and corpus.folds is None
        if not validation and chooses:
            closing = train  # for its threshold
        weights = sum(p.numel() * p.element_size() for p in self.parts.bare.parameters())
        return validation, test, weights, closing

    def _plan_anew(self, recipe: Recipe, write: Callable[[], None] = lambda: None) -> None:
        """Go on with what was found before the first step of a stage, and save it."""
        self.recipe = recipe
        self.stages = stages.plan_stages(recipe, self.stage.rows)
        self.stage = self.stages[self.stage.number - 1]
        resolved = self.resolved_recipe
        self.identity = {**self.identity, "recipe": resolved.model_dump(mode="json")}
        self.checkpointer.identity = self.identity

        def write_all() -> None:
            write()
            run_folder.write_recipe(self.folder, resolved)

        self.env.on_main(write_all)

    def _settle(self) -> None:
        """Before the first step with these parts."""
        self.events.stage = self.stage.number if self.stage.count > 1 else None
        if self.log.steps < self.stage.end:
            messages.print_stage(self.stage)
        lowered = self.state.micro_batch_tokens  # in an earlier stage, or before a checkpoint
        if lowered is not None and lowered < self.parts.plan.micro_batch_tokens:
            self._set_tokens(lowered)
        self.parts.optimizer.zero_grad()
        trained = train_state.trained_names(self.parts.model, self.env.accelerator)
        self.state.trained = sorted({*self.state.trained, *trained})

    # --- between steps ----------------------------------------------------------------------------

    def callbacks(self) -> Callbacks:
        """What the loop calls between steps."""
        timed = self.env.meter.timed
        return Callbacks(
            log=lambda step, line: self.events.write("train", step, line),
            validate=timed("validate", self.validate),
            after_step=timed("checkpoint", self.after_step),
            lowered=self.after_lowered,
        )

    def after_lowered(self, step: int, tokens: int, recomputes: bool) -> None:
        """Note that a step ran out of memory, and compute so many tokens at once from there on."""
        self._use_lowered(f"step {step:,}", tokens, recomputes)
        line = {"micro_batch_tokens": tokens, "checkpointing": recomputes}
        self.events.write("out_of_memory", step, line)

    def _lowered_during(self, trial: str) -> OnLowered:
        """What notes that a step ran out of memory that is undone later."""
        return lambda step, *how: self._use_lowered(f"{trial}, step {step:,}", *how)

    def _use_lowered(self, step: str, tokens: int, recomputes: bool) -> None:
        messages.print_lowered(step, self.parts.plan.micro_batch_tokens, tokens, recomputes)
        self.state.micro_batch_tokens = tokens
        self._set_tokens(tokens)

    def _set_tokens(self, tokens: int) -> None:
        """Compute so many tokens at once, in scoring too."""
        plan = dataclasses.replace(self.parts.plan, micro_batch_tokens=tokens)
        self.parts = dataclasses.replace(self.parts, plan=plan)

    def validate(self, step: int) -> None:
        """Score validation, and keep the model where it is the best so far.

        Raises:
            DivergedError: for a loss that is not finite, and a model that predicts one class only.
        """
        at_end = step >= self.stages[-1].end
        last = self.stage.is_last
        with averaged_weights(self.parts.model, self.parts.optimizer):
            self.validator.validate(self.parts, step, in_last_stage=last, at_end=at_end)

    def after_step(self, step: int, scored: bool) -> bool:
        """Begin to write a checkpoint where one is due; True where patience is at an end.

        Raises:
            InputError: where the one before could not be written.
            StoppedError: after a signal, and the checkpoint that it asks for.
        """
        last = self.is_over()
        heartbeat.note("train", step)
        signal, due = self.checkpointer.is_due(step, scored=scored, last=last)
        if due:
            self.checkpointer.save(self.parts, self.log)
        if signal:
            self.checkpointer.wait()  # the message says that it is there
            raise StoppedError.after_step(signal, step, self.folder)
        if last and step < self.stages[-1].end:
            score = self.recipe.score
            more = f" by more than {score.min_improvement}" if score.min_improvement else ""
            print_line(
                f"  stopped early: {score.patience} scorings without a better {score.monitor}{more}"
            )
        return last

    # --- going back -------------------------------------------------------------------------------

    def restore(self, point: Path) -> list[str]:
        """Go on from a checkpoint; returns what a person should know of what changed since.

        Raises:
            InputError: where the checkpoint is damaged, or is of another recipe, data or model.
        """
        stage = stages.stage_at(self.stages, checkpoint.step_of(point))
        if stage != self.stage:
            self._enter(stage, checkpoint_weights(point, self.env))
        lowered = self.state.micro_batch_tokens
        notes = self.checkpointer.restore(point, self.parts, self.log)
        # What did not fit since the checkpoint was written would not fit again.
        self.state.micro_batch_tokens = lowered or self.state.micro_batch_tokens
        return notes

    def back_off(self, error: DivergedError) -> None:
        """Return to the newest checkpoint from when the run was sound, with half the rate.

        Raises:
            InputError: where the recipe says stop, or it came too often.
        """
        earlier, scale = self.state.back_offs, self.state.rate_scale / 2
        if self.recipe.train.on_divergence == "stop" or len(earlier) == BACK_OFFS:
            best = self.state.best.get("step")
            raise error.final(best, self.folder / "model", halved=len(earlier)) from None
        point = self.env.on_main(lambda: self.checkpointer.newest_good(error))
        self.parts.optimizer.zero_grad()
        self.restore(point)
        # Lines written after the checkpoint were cut from the log: they are written again.
        lines = [*earlier, {"diverged_at": error.step, "rate_scale": scale, "why": str(error)}]
        for line in lines[len(self.state.back_offs) :]:
            self.events.write("back_off", self.log.steps, line)
        self.state.back_offs, self.state.rate_scale = lines, scale
        self.state.sound = checkpoint.step_of(point)
        messages.print_back_off(error, self.log.steps, scale)

    def restore_best(self) -> str:
        """Put the best model's weights into every process's model; returns their hash.

        They come from its folder through `from_pretrained`, as any user's will, so what is scored
        after this is what the folder holds.
        """
        if self.state.best["step"] <= self.stage.begin:
            # Other weights than those that this stage's frozen layers made their states with.
            self.parts = dataclasses.replace(self.parts, tables=self.parts.plain)
        weights: Tensors = {}

        def load() -> str:
            trusted = self.recipe.model.trust_remote_code
            saved, _ = saved_model.load_classifier(self.folder / "model", trust_remote_code=trusted)
            weights.update(saved.state_dict())
            return saved_model.weights_hash(weights)

        digest = self.env.on_main(load)
        train_state.load_weights(self.parts.model, weights, self.env.accelerator)
        return digest

    def close(self) -> None:
        """Close the trackers: the run is over."""
        trackers.finish(self.env.accelerator)
