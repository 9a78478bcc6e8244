"""What is forgotten, in sentences."""

from finetune.evaluation.analysis_model import ParentComparison
from finetune.reporting.parent_text import explain_parent, tabulate_parent

LOST = {
    "label": "a", "support": 40, "before": 0.9, "after": 0.6, "difference": -0.3,
    "interval": (-0.45, -0.1), "p_value": 0.002,
}  # fmt: skip
FOUND = {
    "source": "runs/old", "kept": ["a", "b"], "new": ["c"], "gone": ["d"], "metric": "accuracy",
    "rows": 80, "before": 0.9, "after": 0.75, "difference": -0.15, "interval": (-0.2, -0.05),
    "taken_by_new": 3, "new_rows": 8, "new_recall": 0.5,
    "labels": [LOST, LOST | {"label": "b", "difference": 0.0, "p_value": 1.0}],
}  # fmt: skip


def test_sentences():
    assert [*explain_parent(ParentComparison.model_validate(FOUND))] == [
        "accuracy on the 80 test documents of the 2 labels that both know: 90.0\u00a0% before, "
        "75.0\u00a0% now (−15.0 points, 95 % interval −20.0 to −5.0).",
        "Forgotten, by more than chance: ‘a’ (−30.0 points).",
        "3 of these documents were right before and are now given a new label.",
        "Of 8 test documents with a new label, 50.0\u00a0% are given it.",
        "No longer predicted, as the data lack them: d.",
    ]
    kept = FOUND | {"labels": [], "taken_by_new": 0, "new_recall": None, "gone": []}
    said = [*explain_parent(ParentComparison.model_validate(kept | {"metric": "f1_micro"}))]
    assert said[0].startswith("f1_micro on the 2 labels that both know: 90.0")
    assert said[1:] == ["No label is forgotten by more than chance."]


def test_the_table_lists_losses_alone():
    table = tabulate_parent(ParentComparison.model_validate(FOUND))
    assert table[1:] == [
        ["a", "40", "90.0\u00a0%", "60.0\u00a0%", "−30.0", "−45.0 to −10.0", "0.002"]
    ]
    assert tabulate_parent(ParentComparison.model_validate(FOUND | {"labels": []})) == []
