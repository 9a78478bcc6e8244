"""The cascade of a batch job: its student, the plan of an unfinished job, and its file.

student = load_student(options, teacher, device)           # None: the job has no cascade
plan = plan_job(options, teacher, student, store)
write_plan(options.output.cascade_file, plan, rows=1_000, by_student=870)
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.inference.cascade import (
    KEY,
    Cascade,
    CascadePlan,
    check_pair,
    describe_data,
    plan_cascade,
)
from finetune.inference.classifier import Classifier
from finetune.inference.job_options import JobOptions
from finetune.inference.records import ANSWERED_BY, STUDENT, TEACHER
from finetune.inference.shards import ShardStore
from finetune.runtime.atomic_files import write_json
from finetune.runtime.errors import InputError

if TYPE_CHECKING:
    import torch


def load_student(
    options: JobOptions, teacher: Classifier, device: "torch.device"
) -> Classifier | None:
    """The student of a cascade; None: there is none.

    Args:
        device: where torch computes.

    Raises:
        InputError: where it cannot be loaded, or does not fit the teacher.
    """
    if options.cascade is None:
        return None
    if options.output.explain:
        raise InputError(f"--explain: expected one model, got two ({KEY}); leave one out")
    compute = replace(options.compute, device=device)
    student = Classifier.with_options(options.cascade.student, None, compute)
    check_pair(teacher, student)
    return student


def plan_job(
    options: JobOptions, teacher: Classifier, student: Classifier, store: ShardStore
) -> CascadePlan:
    """The plan of the job that goes on, where it is for the same; else a new one."""
    assert options.cascade is not None
    asked = options.cascade
    before = store.read_job().get("cascade") if options.output.resume else None
    if before is not None:
        known = CascadePlan.from_json(before)
        cascade = Cascade(teacher, student, known.chosen.threshold)
        is_same = (known.max_loss, known.data) == (asked.max_loss, describe_data(asked))
        if is_same and store.read_job()["model"] == cascade.identity:
            return known
    return plan_cascade(asked, teacher, student, options.model.name)


def write_plan(file: Path, plan: CascadePlan, rows: int, by_student: int) -> None:
    """Put the plan beside the output, with how many rows each model answered.

    Raises:
        InputError: where it cannot be written.
    """
    answered = {STUDENT: by_student, TEACHER: rows - by_student}
    write_json(file, {**plan.as_json(), ANSWERED_BY: answered})
