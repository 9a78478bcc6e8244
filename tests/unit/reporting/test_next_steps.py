"""What to try next: each rule of thumb speaks where its number says so, and only there."""

from finetune.reporting.next_steps import suggest_next_steps
from tests.unit.reporting.made import changed, made_results


def steps_of(change, log=()):
    return " ".join(suggest_next_steps(changed(made_results(), change), log))


def test_leaks_come_first():
    finding = {"split": "test", "rule": "kept", "places": [], "message": "x"}

    def leaks(values):
        values["data"]["findings"] = [
            finding | {"kind": "leak", "count": 7, "other": "train"},
            finding | {"kind": "near leak", "count": 2, "other": "train"},
            finding | {"kind": "near leak", "count": 3, "other": "validation"},
        ]

    said = steps_of(leaks)
    assert said.startswith(
        "Test texts or near-duplicates of them are also in another split (9 in train, 3 in "
        "validation)."
    )
    assert "data.on_leak=drop" in said


def test_a_loss_that_still_fell_and_rare_labels():
    log = [
        {"kind": "validation", "step": step, "loss": loss} for step, loss in ((50, 0.9), (60, 0.5))
    ]
    said = " ".join(suggest_next_steps(made_results(), log))
    assert "Validation loss was still falling at the end (0.900 to 0.500)" in said
    assert "'label 0', 'label 1', 'label 2' have fewer than 30 train rows" in said
    assert "still falling" not in " ".join(suggest_next_steps(made_results(), log[:1]))


def test_too_few_steps():
    for planned, is_blamed in ((44, True), (45, False)):  # else patience ended it
        said = steps_of(lambda v, p=planned: v["train"].update(steps=4, planned_steps=p))
        assert ("4 steps are too few to train on" in said) == is_blamed


def test_a_model_that_is_no_better_than_a_guess():
    def guess(values):
        gap = {"difference": -1.0, "interval": [-0.1, 0.1]}
        values["baselines"]["majority"]["paired_difference"] = {"accuracy": gap, "f1_macro": gap}

    assert "it has learned next to nothing. Try more train.epochs" in steps_of(guess)


def test_clipped_gradients_and_confused_pairs():
    assert "100\u00a0% of the steps had their gradient clipped" in steps_of(lambda values: None)
    assert "gradient clipped" not in steps_of(lambda v: v["train"].update(clipped=0.5))

    def confused(values):
        for one in values["classes"]:
            one["recall"], one["support"] = 0.5, 10
        values["confused_pairs"] = [
            {"label": "label 0", "predicted": "label 1", "rows": 5, "share": 0.5}
        ]

    assert "'label 0' predicted as 'label 1' makes up 5 of 15 mistakes" in steps_of(confused)
