"""Several labels from a teacher, and what the corpus is told of it."""

import numpy as np
import pytest

from finetune.config import schema
from finetune.data.corpus import Corpus, Split
from finetune.data.places import Places
from finetune.inference.teacher import label_by_teacher
from finetune.training.teacher_targets import TeacherTargets

RECIPE = schema.Recipe(data=schema.Data(source="x"), distil=schema.Distil(teacher="a"))


def made(labels, is_labelled):
    rows = len(labels)
    train = Split(
        "train", ["t"] * rows, np.array(labels), Places("x", range(rows)), "x",
        is_labelled=np.array(is_labelled),
    )  # fmt: skip
    return Corpus(
        ("a", "b"), train, train.without_rows(), train.without_rows(), (), np.ndim(labels) == 2
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([0, 1, 0], [0, 1, 1]), ([[1, 0], [0, 1], [0, 0]], [[1, 0], [0, 1], [0, 1]])],
)
def test_only_rows_without_a_label_get_the_teachers(labels, expected):
    said = TeacherTargets(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], np.float32), "k", ("a",))
    taught = label_by_teacher(RECIPE, made(labels, [True, True, False]), said)
    assert taught.train.labels.tolist() == expected
    [finding] = taught.findings
    assert (finding.kind, finding.count) == ("distilled", 3)
    assert "50.0 % of 2 such rows" in finding.rule
