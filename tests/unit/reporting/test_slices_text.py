"""What is said of slices, in the terminal and in the report."""

import json

import pytest

from finetune.evaluation.analysis_model import Slicing
from finetune.reporting import console_report, html_report
from finetune.reporting.results_model import describe
from finetune.reporting.slices_text import divide_slices, explain_slices, tabulate_slices
from tests.unit.reporting.made import changed, made_log, made_results


def made_slice(value, p, difference=-0.2, **more):
    scores = {"accuracy": 0.7, "f1_macro": 0.6, "top_3_accuracy": None, "loss": 0.5, "loss_se": 0.1}
    ends = dict.fromkeys(("accuracy", "f1_macro", "loss"), (0.5, 0.8)) | {"top_3_accuracy": None}
    return {
        "value": value, "rows": 12, "difference": difference, "difference_interval": [-0.3, -0.1],
        "p_value": p, "intervals": ends, **scores, **more,
    }  # fmt: skip


def made_slicing(*slices, worst=None):
    return Slicing.model_validate(
        {"by": "channel", "kind": "column", "slices": slices, "worst": worst}
    )


def test_the_worst_is_named_where_chance_does_not_explain_it():
    clear = made_slicing(made_slice("mail", 0.0001), made_slice("web", 0.3, 0.2), worst="mail")
    (line,) = explain_slices([clear])
    assert line == (
        "By channel: the accuracy of ‘mail’ (12 documents) is −20.0 points from that of the others "
        "(95 % interval −30.0 to −10.0; p < 0.001)."
    )
    unclear = made_slicing(made_slice("mail", 0.07), made_slice("web", 0.3, 0.2), worst="mail")
    (line,) = explain_slices([unclear])
    assert line == "By channel: no slice is worse than the others by more than chance (p = 0.070)."
    alone = made_slicing(made_slice("mail", None, None, difference_interval=None))
    (line,) = explain_slices([alone])
    assert line == "By channel: all documents are in one slice, ‘mail’."


def test_many_slices_are_cut_in_the_terminal_alone():
    many = made_slicing(*(made_slice(f"v{i}", 1.0) for i in range(12)), worst="v0")
    rows = tabulate_slices(many, "accuracy")
    assert rows[1] == ["v0", "12", "0.7000", "0.5000 to 0.8000", "−20.0 points", "1.000"]
    assert rows[-1][0] == "11 more in the report"  # none of which differs by more than chance
    many = made_slicing(
        *(made_slice(f"v{i}", 0.01 / (i + 1) if i > 9 else 1.0) for i in range(12)), worst="v10"
    )
    rows = tabulate_slices(many, "accuracy")
    assert [row[0] for row in rows[1:]] == ["v10", "v11", "10 more in the report"]


def test_the_slices_that_matter_come_first():
    slicing = made_slicing(
        made_slice("mail", 0.9),
        made_slice("post", 0.001, 0.2),
        made_slice("web", 0.03),
        made_slice("none", None, None, difference_interval=None),
        worst="web",
    )
    first, others = divide_slices(slicing)
    assert [one.value for one in first] == ["web", "post"]
    assert [one.value for one in others] == ["mail", "none"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("2024-01-02T10:29:00 to 2024-03-03T10:50:00", "2024-01-02 to 2024-03-03"),
        ("2024-01-02T10:29:00 to 2024-01-02T18:00:00", "2024-01-02T10:29:00 to 2024-01-02T18:00…"),
        ("2024-01-02 to 2024-03-03", "2024-01-02 to 2024-03-03"),
        ("x" * 50, "x" * 39 + "…"),
    ],
)
def test_a_name_that_is_cut_says_so(value, shown):
    (_, (name, *_)) = tabulate_slices(made_slicing(made_slice(value, 1.0)), "accuracy")
    assert name == shown


def test_the_report_and_the_terminal_show_them_escaped(capsys):
    one = made_slicing(made_slice("<b>x</b>", 0.01), made_slice("y", 0.01, 0.2), worst="<b>x</b>")
    results = changed(
        made_results(), lambda values: values.update(slices=[json.loads(one.model_dump_json())])
    )
    page = html_report.render(results, made_log())
    assert '<section id="slices">' in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "<b>x</b>" not in page
    assert 'href="#slices"' in page
    console_report.print_slices(results.slices, "accuracy")
    said = capsys.readouterr().out
    assert "by channel" in said
    assert "−20.0 points" in said
    assert '<section id="slices">' not in html_report.render(made_results(), made_log())
    assert "`slices[].slices[].p_value`" in describe()
