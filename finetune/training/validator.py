"""Validation decides: which model is kept, when patience ends, whether a run is lost."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.corpus import Split, class_counts, format_labels
from finetune.evaluation import metrics, probabilities, scoring, thresholds
from finetune.evaluation.scoring import Scores
from finetune.evaluation.task_scores import constant_guess_of_tasks
from finetune.modeling.saved_model import replace_model_folder
from finetune.training import divergence, folder_mark, train_state
from finetune.training.event_log import EventLog
from finetune.training.messages import print_validation
from finetune.training.prepared_data import PreparedData
from finetune.training.run_environment import RunEnvironment
from finetune.training.run_state import RunState
from finetune.training.stages import StageParts
from finetune.training.train_log import DivergedError

# Told of each scoring of validation, and whether it is the last; may raise to end the run there.
ScoreCallback = Callable[[Mapping[str, float], bool], None]


class Validator:
    """Scores splits, and keeps the best model in the run folder's `model/`.

    Attributes:
        on_score: is told of each scoring of validation.
    """

    def __init__(
        self,
        data: PreparedData,
        env: RunEnvironment,
        folder: Path,
        state: RunState,
        events: EventLog,
        on_score: ScoreCallback | None = None,
    ) -> None:
        self.data, self.env, self.folder = data, env, folder
        self.state, self.events, self.on_score = state, events, on_score

    def score(
        self,
        parts: StageParts,
        split: Split,
        label_thresholds: NDArray[np.float64] | None = None,
    ) -> Scores:
        """Score a split with the model as it is. All processes call this.

        Args:
            label_thresholds: multi-label: from which probability on each label is predicted.
        """
        corpus = self.data.corpus
        with self.env.meter("test" if split.name == "test" else "score"):
            return scoring.score(
                parts.model,
                parts.tables[split.name],
                split.labels,
                self.data.metrics,
                self.env.accelerator,
                parts.plan.micro_batch_tokens,
                label_thresholds,
                corpus.tasks or (1.0 if corpus.number is None else corpus.number.deviation),
            )

    def with_thresholds(self, logits: NDArray[np.float32]) -> Scores:
        """Validation's scores; multi-label: with the thresholds that are best for it, which the
        saved model will have."""
        labels, chosen = self.data.corpus.validation.labels, None
        assert labels is not None
        if self.data.corpus.multi_label:
            chosen = thresholds.choose_per_label(probabilities.sigmoid(logits), labels)
        return Scores(
            logits, scoring.compute_metrics(logits, labels, self.data.metrics, chosen), chosen
        )

    def validate(self, parts: StageParts, step: int, *, in_last_stage: bool, at_end: bool) -> None:
        """Score validation; keep the model where it is the best so far (a tie is not better).

        Without validation, keep the last step's.

        Raises:
            DivergedError: for a loss that is not finite, and a model that predicts one class only.
        """
        state, score = self.state, self.data.recipe.score
        if not len(self.data.corpus.validation):
            state.sound = step
            if at_end:
                self._keep(parts, {"step": step})
            return
        scores = self.score(parts, self.data.corpus.validation)
        if self.data.corpus.multi_label and self.data.corpus.tasks is None:
            scores = self.with_thresholds(scores.logits)
        values = self._refuse_if_lost(scores, step)
        better = metrics.is_better(score.monitor, values, state.best)
        print_validation(step, values, better)
        if better:
            self._keep(parts, values | {"step": step})
        if metrics.is_better(
            score.monitor, values, state.patience_mark, by_more_than=score.min_improvement
        ):
            state.patience_mark, state.waited = dict(values), 0
        elif in_last_stage:  # the others do what it begins with, however well they score
            state.waited += 1
        if self.on_score is not None:
            self.on_score(values, at_end)

    def is_out_of_patience(self) -> bool:
        """Whether validation has not improved for as long as the recipe waits."""
        patience = self.data.recipe.score.patience
        return patience is not None and self.state.waited >= patience

    def has_kept_a_model(self, step: int) -> bool:
        """Whether there is a model to end with: without validation, only that of the last step."""
        if len(self.data.corpus.validation):
            return bool(self.state.best)
        return self.state.best.get("step") == step

    def _refuse_if_lost(self, scores: Scores, step: int) -> dict[str, float]:
        """The scores' values, as the main process has them, logged.

        Raises:
            DivergedError: where the loss is not finite, or the model has collapsed.
        """
        best_loss, guess_loss = self.state.best.get("loss"), self._guess_loss()
        multi_label, number = self.data.corpus.multi_label, self.data.corpus.number

        def score_and_check() -> tuple[dict[str, float], bool]:
            loss, loss_se = scores.values["loss"], scores.values["loss_se"]
            logits = scores.logits
            if number is not None:  # each number counts alone, as a multi-label logit does
                logits = (logits - number.mean) / number.deviation
            return scores.values, math.isfinite(loss) and divergence.has_collapsed(
                logits, loss, loss_se, guess_loss, best_loss, multi_label or number is not None
            )

        # If one process decided otherwise than the others, these would wait for it for ever.
        values, has_collapsed = self.env.on_main(score_and_check)
        if not math.isfinite(values["loss"]):
            raise DivergedError.at(step, "validation loss", values["loss"])
        self.events.write("validation", step, values)
        if has_collapsed and number is not None:
            raise DivergedError.collapsed(step, f"{scores.logits[0, 0]:g}")
        if has_collapsed:
            first, tasks = scores.logits[:1], self.data.corpus.tasks
            predicted = probabilities.predict_labels(first, multi_label, scores.thresholds)
            predicted = predicted if tasks is None else tasks.predict(first)
            label = format_labels(predicted[0], self.data.corpus.labels)
            raise DivergedError.collapsed(step, label)
        if not divergence.is_worse(values["loss"], values["loss_se"], guess_loss):
            self.state.sound = step
        return values

    def _guess_loss(self) -> float:
        """The loss of a model that gives every document the same probabilities."""
        labels, train = self.data.corpus.validation.labels, self.data.corpus.train.labelled_only()
        assert labels is not None
        if (number := self.data.corpus.number) is not None:
            return max(1.0, float((((labels - number.mean) / number.deviation) ** 2).mean()))
        counts = [*class_counts(train, self.data.corpus.labels).values()]
        if (tasks := self.data.corpus.tasks) is not None:
            return constant_guess_of_tasks(labels, np.array(counts), tasks)
        return divergence.constant_guess_loss(labels, np.array(counts) / len(train))

    def _keep(self, parts: StageParts, scores: dict[str, float]) -> None:
        """Save the model as it is, the best so far."""
        self.state.best = scores
        weights = train_state.gather_weights(parts.model, self.env.accelerator)
        tokenizer = self.data.tokens.tokenizer

        def write() -> None:
            replace_model_folder(parts.bare, tokenizer, self.folder / "model", weights)
            for code in sorted((self.folder / "model").glob("*.py")):
                folder_mark.record_text(self.folder, f"model/{code.name}", code.read_bytes())

        self.env.on_main(write)
