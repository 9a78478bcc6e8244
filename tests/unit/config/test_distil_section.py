"""The section `distil`: its keys mean something with a teacher alone, and lists are lists."""

import pytest

from finetune.config import schema
from finetune.config.distil_section import Distil


def test_a_teacher_and_a_file_may_be_one_or_several():
    assert (Distil().teachers(), Distil().files()) == ((), ())
    one = Distil(teacher="a", unlabelled="x.csv")
    assert (one.teachers(), one.files()) == (("a",), ("x.csv",))
    several = Distil.model_validate({"teacher": ["a", "b"], "unlabelled": ["x.csv", "y.csv"]})
    assert (several.teachers(), several.files()) == (("a", "b"), ("x.csv", "y.csv"))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"distil": {"weight": 0.3}}, "0.5, its default, without distil.teacher"),
        ({"distil": {"unlabelled": "x.csv"}}, "null, its default, without distil.teacher"),
        ({"distil": {"teacher": "a"}, "run": {"folds": 5}}, "null with run.folds"),
        ({"distil": {"teacher": "a"}, "data": {"source": "x", "fold": "1/5"}}, "with data.fold"),
        (
            {"distil": {"teacher": "a", "unlabelled": "x"}, "score": {"out_of_scope": "auto"}},
            "off with distil.unlabelled",
        ),
    ],
)
def test_keys_that_contradict_each_other(sections, message):
    with pytest.raises(ValueError, match=message):
        schema.Recipe.model_validate({"data": {"source": "x"}, **sections})
