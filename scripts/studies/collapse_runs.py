"""The runs of collapse_study.py: trained to their end, whether they collapse or not."""

import sys
from dataclasses import dataclass, field

import numpy as np
from accelerate import Accelerator
from accelerate.utils import set_seed

from finetune.compute import hardware_plan
from finetune.config.schema import Recipe
from finetune.data import local_paths, prepare, sources
from finetune.evaluation import metrics, scoring
from finetune.modeling import build, pretrained
from finetune.runtime.console import format_table
from finetune.tokenization import encoding
from finetune.training import divergence, loop, row_losses
from finetune.training import optimizer as optimizer_module
from finetune.training.schedule import Schedule
from finetune.training.train_log import DivergedError, TrainLog


@dataclass
class Run:
    """One training: a spread over size, a loss over a guess's, and an alarm for each scoring."""

    rate: float
    clipping: str
    seed: int
    ratios: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    alarms: list[bool] = field(default_factory=list)
    accuracy: float = 0.0
    end: str = "learns"

    def row(self) -> list[str]:
        alarm = f"scoring {self.alarms.index(True) + 1}" if any(self.alarms) else "-"
        low, last = (f"{value:.2g}" for value in (min(self.ratios), self.ratios[-1]))
        return [
            f"{self.rate:g}", self.clipping, str(self.seed), self.end, f"{self.accuracy:.3f}",
            low, last, f"{self.losses[-1]:.3g}", alarm,
        ]  # fmt: skip


HEAD = ["rate", "clip", "seed", "end", "accuracy", "lowest", "last", "loss / guess", "alarm"]


def as_table(runs: list[Run]) -> str:
    """A line for each run."""
    return format_table([HEAD, *(run.row() for run in runs)])


def train(choices: Recipe) -> Run:
    """One run, in full."""
    plan = hardware_plan.plan_hardware(choices.model, choices.train)
    accelerator = Accelerator(mixed_precision="no" if plan.precision == "fp32" else plan.precision)
    hardware_plan.apply_plan(plan)
    corpus = prepare.prepare_corpus(sources.load_rows(choices.data), choices.data)
    truth, labels = corpus.validation.labels, corpus.train.labels
    assert truth is not None
    assert labels is not None
    source = local_paths.resolve_model_source(choices.model.source)
    config = pretrained.load_config(source, choices.model)
    tokenizer = pretrained.load_tokenizer(source, choices.model)
    length = encoding.resolve_max_length(choices.data.max_length, pretrained.max_positions(config))
    tables = [
        encoding.encode(split.texts, tokenizer, length)
        for split in (corpus.train, corpus.validation)
    ]
    seed = choices.run.seed
    classifier = build.build_classifier(
        source, choices.model, corpus.labels, plan.attention, seed=seed
    )
    set_seed(seed)
    prepared, optimizer = accelerator.prepare(
        classifier, optimizer_module.build_optimizer(classifier, choices.optim)
    )
    wanted = metrics.load_metrics(("accuracy",), "accuracy", trust_remote_code=False)
    guess = divergence.constant_guess_loss(truth, np.bincount(labels) / len(labels))
    assert isinstance(choices.optim.lr, float)
    run = Run(choices.optim.lr, str(choices.optim.max_grad_norm), seed)

    def validate(step: int) -> None:
        scores = scoring.score(
            prepared, tables[1], truth, wanted, accelerator, plan.micro_batch_tokens
        )
        loss, loss_se = scores.values["loss"], scores.values["loss_se"]
        best = guess * min(run.losses, default=1.0) if run.losses else None
        run.ratios.append(divergence.spread_over_size(scores.logits))
        run.alarms.append(divergence.has_collapsed(scores.logits, loss, loss_se, guess, best))
        run.losses.append(loss / guess)
        run.accuracy = scores.values["accuracy"]
        one_answer = len(np.unique(scores.logits.argmax(axis=1))) == 1
        run.end = "collapsed" if one_answer else "learns"

    try:
        loop.fit(
            prepared,
            optimizer,
            row_losses.TrainingRows(tables[0], labels, plan.micro_batch_tokens),
            Schedule.of(choices, len(tables[0])),
            choices,
            accelerator,
            TrainLog(accelerator, choices.optim.max_grad_norm),
            loop.Callbacks(validate=validate),
        )
    except DivergedError:
        run.end = "not finite"
    if not run.ratios:
        run.ratios, run.losses, run.alarms = [float("nan")], [float("nan")], [False]
    print("  ".join(run.row()), file=sys.stderr, flush=True)
    return run


def conclude(runs: list[Run]) -> None:
    """How far apart the scorings of both kinds of runs are, and what the thresholds make of it."""
    sound = [run for run in runs if run.end == "learns"]
    collapsed = [run for run in runs if run.end == "collapsed"]
    print(f"\n{len(sound)} runs learn, {len(collapsed)} collapse, of {len(runs)}")
    if sound:
        lowest = min(min(run.ratios) for run in sound)
        alarms = sum(sum(run.alarms) for run in sound)
        print(f"lowest spread over size in a run that learns: {lowest:.3g}; false alarms: {alarms}")
    if collapsed:
        highest = max(run.ratios[-1] for run in collapsed)
        missed = sum(not any(run.alarms) for run in collapsed)
        print(f"highest at the end of one that collapsed: {highest:.3g}; not seen: {missed}")
    print(f"thresholds: spread over size {divergence.SAME}, loss over a guess {divergence.WORSE}")
