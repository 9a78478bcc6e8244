"""What may change when a run is resumed, with a note, and what may not."""

import copy
from pathlib import Path

import pytest

from finetune.config import schema
from finetune.runtime.errors import InputError
from finetune.training import run_identity
from finetune.training.run_identity import compare_identities, recipe_hash

POINT = Path("run/checkpoints/step-00000004")


def identity(**sections):
    recipe = schema.Recipe(data=schema.Data(source="rows.csv"), **sections)
    split = {"rows": 9000, "hash": "abc"}
    return {
        "recipe": recipe.model_dump(mode="json"),
        "derived": ["cache.frozen_states"],
        "data": {"labels": ["a", "b"], "splits": {"train": dict(split), "test": dict(split)}},
        "tokens": "t",
        "encoder": {"hidden_size": 32},
        "start": "w",
        "ends": [],
    }


def test_the_same_is_the_same():
    assert compare_identities(identity(), identity(), POINT) == []


@pytest.mark.parametrize(
    ("sections", "note"),
    [
        ({"train": schema.Train(epochs=7)}, "train.epochs was auto until here, and is 7 from here"),
        ({"train": schema.Train(micro_batch_tokens=99)}, "the same but for the order in which"),
        ({"checkpoint": schema.Checkpoint(keep=9)}, None),
        ({"score": schema.Score(patience=3)}, None),
    ],
)
def test_what_may_change(sections, note):
    notes = compare_identities(identity(), identity(**sections), POINT)
    assert len(notes) == (note is not None)
    assert all(note in one for one in notes)


def test_a_key_that_is_newer_than_the_checkpoint_had_its_default():
    then = identity()
    for section in then["recipe"].values():
        section.clear()
    then["recipe"]["data"] = identity()["recipe"]["data"]
    then["recipe"]["train"]["stages"] = []
    del then["recipe"]["data"]["hierarchy"]
    assert compare_identities(then, identity(), POINT) == []
    with pytest.raises(InputError, match=r"train\.batch_size is 8, and was 32 when"):
        compare_identities(then, identity(train=schema.Train(batch_size=8)), POINT)


def changed(**values):
    made = copy.deepcopy(identity())
    for path, value in values.items():
        *parents, last = path.split("__")
        inner = made
        for name in parents:
            inner = inner[name]
        inner[last] = value
    return made


@pytest.mark.parametrize(
    ("now", "problem"),
    [
        (identity(optim=schema.Optim(momentum=0.5)), "optim.momentum is 0.5, and was 0.9 when"),
        (changed(data__labels=["a", "c"]), "the labels are a, c, and were a, b when"),
        (
            changed(data__splits__test={"rows": 8, "hash": "d"}),
            "the test documents are not the same (8 rows, and were 9,000; rows.csv) when",
        ),
        (changed(tokens="u"), "makes other tokens of the same documents when"),
        (changed(encoder__hidden_size=64), "hidden_size in the encoder's config.json is 64"),
        (changed(start="v"), "the weights it began with are not those of"),
        (changed(ends=[3]), "the stages before the last end at steps [3], and ended at [] when"),
    ],
)
def test_what_may_not_change(now, problem):
    with pytest.raises(InputError) as caught:
        compare_identities(identity(), now, POINT)
    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]
    assert caught.value.problems[0].startswith("run.resume: ")


def test_all_that_differs_is_told_at_once():
    now = changed(tokens="u", start="v", encoder__hidden_size=64)
    with pytest.raises(InputError) as caught:
        compare_identities(identity(), now, POINT)
    assert len(caught.value.problems) == 3


def test_a_recipe_s_hash_is_of_what_decides_a_number():
    def of(**sections):
        return recipe_hash(schema.Recipe(data=schema.Data(source="x"), **sections))

    assert of() == of(checkpoint=schema.Checkpoint(keep=9), run=schema.Run(name="other"))
    assert of() != of(run=schema.Run(seed=1))
    assert run_identity.flat_keys({"a": {"b": 1}}) == {"a.b": 1}


def test_a_mean_of_weights_that_would_begin_elsewhere():
    """The checkpoint is of step 4; 282 steps an epoch."""

    def averaged(**length):
        return identity(train=schema.Train(average_last=0.5, **length))

    longer = averaged(epochs=6)
    assert len(compare_identities(averaged(epochs=3), longer, POINT)) == 1  # neither has begun
    begun, dropped = averaged(max_steps=6), averaged(max_steps=8)
    assert len(compare_identities(begun, dropped, POINT)) == 1  # begins anew after step 4
    with pytest.raises(InputError) as caught:
        compare_identities(begun, averaged(max_steps=5), POINT)
    assert str(caught.value).startswith(
        "run.resume: train.average_last: with this length, the mean of the weights is of the steps "
        "after 2, and it was of those after 3 when "
    )
