"""What a run does between its steps: log, score validation, keep the best model, checkpoint.

And what it does when it is started again, or has diverged: go back to a checkpoint.
"""

import dataclasses
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from finetune.config import loader, schema
from finetune.data.corpus import Corpus, Split, class_counts, format_answer
from finetune.evaluation import metrics, probabilities, scoring, thresholds
from finetune.modeling import saved_model
from finetune.runtime import atomic_files, environment
from finetune.runtime.console import print_line
from finetune.runtime.cost_meter import CostMeter
from finetune.runtime.distributed import fix_ddp_buckets, run_on_main
from finetune.runtime.errors import InputError, StoppedError
from finetune.runtime.signals import SignalListener
from finetune.training import (
    checkpoint,
    divergence,
    lr_finder,
    resume,
    run_folder,
    stages,
    train_state,
)
from finetune.training.messages import (
    print_back_off,
    print_range_test,
    print_stage,
    print_validation,
)
from finetune.training.stages import Stage, StageBuilder, StageParts
from finetune.training.stop_consensus import StopConsensus
from finetune.training.train_log import DivergedError, Line, TrainLog

# Told of each scoring of validation, and whether it is the last; may raise to end the run there.
ScoreCallback = Callable[[Mapping[str, float], bool], None]
BACK_OFFS = 5  # at most; 1/32 of a rate that is too high is no rate to go on searching below


@dataclass
class RunState:
    """Where a run stands, in plain values; a part of every checkpoint.

    Attributes:
        trained: the parameters that this stage or an earlier one trains.
        best: the best validation scores so far, and their `step`.
        mark: the score that patience measures improvements from.
        waited: scorings of the last stage since the mark was set.
        sound: the step of the last scoring that was not worse than a guess; 0 is none.
        rate_scale: what the learning rate is multiplied by, lowered at each back-off.
        back_offs: a line of the log for each.
    """

    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    trained: list[str] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    mark: dict[str, float] = field(default_factory=dict)
    waited: int = 0
    sound: int = 0
    rate_scale: float = 1.0
    back_offs: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Session:
    """A run under way: its parts, its account and where it stands.

    Attributes:
        choices, saved: the recipe, and as it runs here, which recipe.yaml holds.
        listener: hears signals.
        stages: of the run, and the one under way.
        builder, parts: what makes a stage's parts, and those of the one under way.
        identity: what must be the same for a checkpoint to belong to this run.
        watch: is told of each scoring of validation.
    """

    choices: schema.Recipe
    saved: schema.Recipe
    accelerator: Accelerator
    listener: SignalListener
    stages: Sequence[Stage]
    stage: Stage
    builder: StageBuilder
    parts: StageParts
    tokenizer: PreTrainedTokenizerBase
    corpus: Corpus
    wanted: Sequence[metrics.Metric]
    folder: Path
    identity: Mapping[str, Any]
    record: TrainLog
    meter: CostMeter
    watch: ScoreCallback | None = None
    standing: RunState = field(default_factory=RunState)
    _saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.stopping = StopConsensus(self.accelerator, self.listener)

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.stages[-1].end

    def begin(self) -> None:
        """Before the first step of all, or of those after a checkpoint.

        Raises:
            DivergedError: as `validate` does, where no step is left.
        """
        self._settle()
        if self.is_over() and not self._has_kept_one():
            self.validate(self.record.steps)  # the run was made shorter than it had come
        may_back_off = self.choices.train.on_divergence == "back_off"
        if may_back_off and run_on_main(self.accelerator, lambda: not self._good_ones()):
            # Nothing from when all was well, as in a run that was to stop until now: this must do.
            self.standing.sound = self.record.steps
            self.save(self.record.steps)
        self._saved_at = time.monotonic()

    def goes_on(self) -> bool:
        """Whether there are steps to do; where a stage has done its own, the next is entered."""
        if self.is_over():
            return False
        if self.record.steps >= self.stage.end:
            weights = train_state.gather_weights(self.parts.model, self.accelerator)
            self._enter(self.stages[self.stage.number], weights)
        return True

    def _enter(self, stage: Stage, weights: saved_model.Tensors) -> None:
        """Take up another stage, with the main process's weights."""
        del self.parts  # before the next model is built
        self.stage, self.parts = stage, self.builder.go_on(stage, weights)
        self.find_rate()
        self._settle()

    def find_rate(self) -> None:
        """Where the rate of the stage that begins is left open, find one, and remember it."""
        if self.stage.choices.optim.lr != "auto":
            return
        with self.meter("find_lr"):
            found = self.builder.find_rate(self.stage, self.parts)
        print_range_test(found, self.stage)
        number = self.stage.number
        self.choices, self.saved = (
            one.with_rate(found.rate, number) for one in (self.choices, self.saved)
        )
        self.stages = stages.plan_stages(self.choices, self.stage.rows)
        self.stage = self.stages[number - 1]
        self.identity = {**self.identity, "recipe": self.saved.model_dump(mode="json")}

        def write() -> None:
            lr_finder.write_range_test(found, self.folder, number)
            atomic_files.write_text(self.folder / "recipe.yaml", loader.to_yaml(self.saved))

        self._main_only(write)

    def _settle(self) -> None:
        """Before the first step with these parts."""
        if self.record.steps < self.stage.end:
            print_stage(self.stage)
        one_row = np.zeros(1, dtype=np.int64)
        batch = self.parts.tables["train"].batch(one_row, self.accelerator.device)
        fix_ddp_buckets(self.parts.model, batch)
        self.parts.optimizer.zero_grad()
        trained = train_state.trained_names(self.parts.model, self.accelerator)
        self.standing.trained = sorted({*self.standing.trained, *trained})

    def is_over(self) -> bool:
        """Whether the run has done all its steps, or has lost patience."""
        return self.record.steps >= self.steps or self.out_of_patience()

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, and of the trackers."""
        line = {"kind": kind, "step": step} | dict(values)
        if self.stage.many > 1:
            line |= {"stage": self.stage.number}
        self._main_only(lambda: atomic_files.append_json_line(self.folder / "metrics.jsonl", line))
        self.accelerator.log(
            {f"{kind}/{name}": v for name, v in values.items() if not isinstance(v, str)}, step
        )

    def log_train(self, step: int, line: Line) -> None:
        self.log("train", step, line)

    def score(self, split: Split, cuts: NDArray[np.float64] | None = None) -> scoring.Scores:
        """Score a split with the model as it is, and with thresholds where a row may have several
        labels."""
        with self.meter("test" if split.name == "test" else "score"):
            return scoring.score(
                self.parts.model,
                self.parts.tables[split.name],
                split.labels,
                self.wanted,
                self.accelerator,
                self.parts.plan.micro_batch_tokens,
                cuts,
            )

    def tuned(self, logits: NDArray[np.float32]) -> scoring.Scores:
        """Validation's scores, with the thresholds that are best for it where a row may have
        several labels, as the saved model will have them."""
        truth, cuts = self.corpus.validation.labels, None
        assert truth is not None
        if self.corpus.multi_label:
            cuts = thresholds.choose_per_label(probabilities.sigmoid(logits), truth)
        return scoring.Scores(
            logits, scoring.compute_metrics(logits, truth, self.wanted, cuts), cuts
        )

    def validate(self, step: int) -> None:
        """Score validation; keep the model where it is the best so far (not where it ties).

        Without validation, keep the last step's.

        Raises:
            DivergedError: for a loss that is not finite, and a model that answers one class only.
        """
        if not len(self.corpus.validation):
            self.standing.sound = step
            if step >= self.steps:
                self._keep({"step": step})
            return
        scores = self.score(self.corpus.validation)
        several = self.corpus.multi_label
        if several:
            scores = self.tuned(scores.logits)
        best, guess = self.standing.best.get("loss"), self._guess_loss()

        def judge() -> tuple[dict[str, float], bool]:
            loss, loss_se = scores.values["loss"], scores.values["loss_se"]
            if not math.isfinite(loss):
                return scores.values, False
            return scores.values, divergence.has_collapsed(
                scores.logits, loss, loss_se, guess, best, several
            )

        # The main process's, on all: were one to see it otherwise, the others would wait for it.
        values, collapsed = run_on_main(self.accelerator, judge)
        if not math.isfinite(values["loss"]):
            raise DivergedError.at(step, "validation loss", values["loss"])
        self.log("validation", step, values)
        if collapsed:
            answer = metrics.predict_labels(scores.logits[:1], several, scores.thresholds)[0]
            raise DivergedError.collapsed(step, format_answer(answer, self.corpus.labels))
        if not divergence.is_worse(values["loss"], values["loss_se"], guess):
            self.standing.sound = step
        of = self.choices.score
        standing = self.standing
        better = metrics.is_better(of.best, values, standing.best)
        print_validation(step, values, better)
        if better:
            self._keep(values | {"step": step})
        if metrics.is_better(of.best, values, standing.mark, by_more_than=of.min_improvement):
            standing.mark, standing.waited = dict(values), 0
        elif self.stage.is_last:  # those before it do what it begins with, however well they score
            standing.waited += 1
        if self.watch is not None:
            self.watch(values, step == self.steps)

    def _has_kept_one(self) -> bool:
        """Whether there is a model to end with: without validation, only that of the last step."""
        if len(self.corpus.validation):
            return bool(self.standing.best)
        return self.standing.best.get("step") == self.record.steps

    def _keep(self, scores: dict[str, float]) -> None:
        """Save the model as it is, the best so far."""
        self.standing.best = scores
        weights = train_state.gather_weights(self.parts.model, self.accelerator)
        self._main_only(
            lambda: saved_model.replace_model_folder(
                self.parts.bare, self.tokenizer, self.folder / "model", weights
            )
        )

    def _guess_loss(self) -> float:
        truth, train = self.corpus.validation.labels, self.corpus.train.labels
        assert truth is not None
        assert train is not None
        counts = [*class_counts(self.corpus.train, self.corpus.labels).values()]
        return divergence.constant_guess_loss(truth, np.array(counts) / len(train))

    def pause(self, step: int, scored: bool) -> bool:
        """After each step: write a checkpoint where one is due; True where patience is at an end.

        Raises:
            StoppedError: after a signal, and the checkpoint that it asks for.
        """
        choices = self.choices.checkpoint
        age = time.monotonic() - self._saved_at
        old = choices.minutes is not None and age > 60 * choices.minutes
        last, every = self.is_over(), choices.every
        number, due = self.stopping.agreed(old and self.accelerator.is_main_process, last)
        # The last step's shows that a run is finished, and serves one that is made longer.
        if every != "never":
            due |= last or (scored if every == "evaluation" else step % int(every) == 0)
        if due or number:
            self.save(step)
        if number:
            raise StoppedError.by(number, step, self.folder)
        if last and step < self.steps:
            of = self.choices.score
            more = f" by more than {of.min_improvement}" if of.min_improvement else ""
            print_line(f"  stopped early: {of.patience} scorings without a better {of.best}{more}")
        return last

    def out_of_patience(self) -> bool:
        patience = self.choices.score.patience
        return patience is not None and self.standing.waited >= patience

    def save(self, step: int) -> None:
        """Write a checkpoint of the steps done.

        Raises:
            DivergedError: where a loss or gradient was not finite, which no checkpoint may hold.
            InputError: where it cannot be written; the ones before stay.
        """
        tensors, plain = train_state.capture(
            self.parts.model,
            self.parts.optimizer,
            self.record,
            self.accelerator,
            self.standing.trained,
        )
        may_back_off = self.choices.train.on_divergence == "back_off"

        def write() -> None:
            about = {
                "identity": self.identity,
                "standing": dataclasses.asdict(self.standing),
                "metrics_bytes": atomic_files.synced_size(self.folder / "metrics.jsonl"),
                "num_processes": self.accelerator.num_processes,
                "sharded": self.accelerator.is_fsdp2,
                "versions": environment.library_versions(),
            }
            checkpoint.write_checkpoint(self.folder, step, tensors, about | plain)
            checkpoint.drop_old(
                self.folder,
                keep=self.choices.checkpoint.keep,
                # Those after it may hold a run that is lost already.
                spare=self.standing.sound if may_back_off else None,
            )

        self._main_only(write)
        self._saved_at = time.monotonic()

    def go_on_from(self, point: Path) -> list[str]:
        """Put a checkpoint's state back, and the run's files to where they were then.

        Returns what a person should know of what changed since.

        Raises:
            InputError: where the checkpoint is damaged, or is of another recipe, data or model.
        """
        stage = stages.stage_at(self.stages, checkpoint.step_of(point))
        if stage != self.stage:
            self._enter(stage, stages.checkpoint_weights(point, self.accelerator))
        kept: dict[str, Any] = {"tensors": {}, "plain": {}}

        def read() -> tuple[dict[str, Any], list[str]]:
            kept["tensors"], kept["plain"] = checkpoint.read_checkpoint(point)
            plain = kept["plain"]
            notes = resume.compare_identities(
                plain["identity"], self.identity, point, rates_found=True
            )
            processes = self.accelerator.num_processes
            if plain["num_processes"] != processes:
                notes.append(
                    f"{plain['num_processes']} processes until here, {processes} from here on: "
                    "floats are added in another order, and dropout draws anew"
                )
            if plain["sharded"] != self.accelerator.is_fsdp2:
                notes.append(
                    "the weights are "
                    + ("spread over" if self.accelerator.is_fsdp2 else "whole on each of")
                    + " the processes from here on: floats are added in another order"
                )
            for name, now in environment.library_versions().items():
                if plain["versions"].get(name) != now:
                    notes.append(f"{name} was {plain['versions'].get(name)}, and is {now}")
            run_folder.reopen_folder(self.folder)  # first: what is left may never look finished
            checkpoint.drop_after(self.folder, checkpoint.step_of(point))
            checkpoint.restore_best(point, self.folder)
            if not atomic_files.truncate_file(
                self.folder / "metrics.jsonl", plain["metrics_bytes"]
            ):
                notes.append("metrics.jsonl lacks lines from before: it was changed or removed")
            return plain["standing"], notes

        standing, notes = run_on_main(self.accelerator, read)
        self.standing = RunState(**standing)
        parts = self.parts
        # A checkpoint from before it was noted has those that are trained now.
        trained = {
            *self.standing.trained,
            *train_state.trained_names(parts.model, self.accelerator),
        }
        train_state.restore(
            parts.model, parts.optimizer, self.record, self.accelerator, trained, **kept
        )
        self._saved_at = time.monotonic()
        return notes

    def back_off(self, error: DivergedError) -> None:
        """Return to the newest checkpoint from when the run was well, with half the rate.

        Raises:
            InputError: where the recipe says stop, or it came too often.
        """
        earlier, scale = self.standing.back_offs, self.standing.rate_scale / 2
        if self.choices.train.on_divergence == "stop" or len(earlier) == BACK_OFFS:
            best = self.standing.best.get("step")
            raise error.final(best, self.folder / "model", halved=len(earlier)) from None
        point = run_on_main(self.accelerator, lambda: self._newest_good(error))
        self.parts.optimizer.zero_grad()
        self.go_on_from(point)
        # Those after the checkpoint went with the lines that were cut: they are written again.
        lines = [*earlier, {"diverged_at": error.step, "rate_scale": scale, "why": str(error)}]
        for line in lines[len(self.standing.back_offs) :]:
            self.log("back_off", self.record.steps, line)
        self.standing.back_offs, self.standing.rate_scale = lines, scale
        self.standing.sound = checkpoint.step_of(point)
        print_back_off(error, self.record.steps, scale)

    def bring_back_best(self) -> str:
        """Put the best model's weights into every process's model; returns their hash.

        They come from its folder through `from_pretrained`, as any user's will, so what is scored
        after this is what the folder holds.
        """
        if self.standing.best["step"] <= self.stage.begin:
            # Other weights than those that this stage's frozen layers made their states with.
            self.parts = dataclasses.replace(self.parts, tables=self.parts.plain)
        loaded: saved_model.Tensors = {}

        def load() -> str:
            saved, _ = saved_model.load_classifier(
                self.folder / "model", trust_remote_code=self.choices.model.trust_remote_code
            )
            loaded.update(saved.state_dict())
            return saved_model.weights_hash(loaded)

        digest = run_on_main(self.accelerator, load)
        train_state.load_weights(self.parts.model, loaded, self.accelerator)
        return digest

    def _good_ones(self) -> list[Path]:
        """The checkpoints from when the run was well, the newest first."""
        there = checkpoint.list_checkpoints(self.folder)
        return [point for point in there if checkpoint.step_of(point) <= self.standing.sound]

    def _newest_good(self, error: DivergedError) -> Path:
        for point in self._good_ones():
            try:
                checkpoint.read_checkpoint(point)
            except InputError as damage:
                print_line(f"  ! {damage}")
                continue
            return point
        raise InputError(f"{error}; {self.folder} has no good checkpoint to back off to")

    def _main_only(self, call: Callable[[], None]) -> None:
        run_on_main(self.accelerator, call)
