"""Figures: a text alternative each, labels escaped, numbers where they belong."""

import re

import pytest

from finetune.reporting import charts, figures, svg
from finetune.reporting.results_model import LrRange
from tests.unit.reporting.made import changed, made_log, made_results

HOSTILE = "<script>alert(1)</script>"


def drawn(results, log=()):
    return [
        figures.overview(results, "accuracy"),
        figures.coverage(results, "in words"),
        figures.lengths(results),
        *(figure.chart for figure in figures.reliability(results)),
        *(figure.chart for figure in figures.training(results, log)),
    ]


def test_every_chart_has_a_text_alternative():
    found = drawn(made_results(), made_log())
    assert len(found) >= 10
    for chart in found:
        ids = re.search(r'role="img" aria-labelledby="(\S+) (\S+)"', chart)
        assert f'<title id="{ids[1]}">' in chart
        assert re.search(rf'<desc id="{ids[2]}">[^<]{{5,}}</desc>', chart)
        assert "nan" not in chart


def test_labels_are_escaped():
    results = made_results()
    hostile = changed(results, lambda v: v["baselines"]["majority"].update(label=HOSTILE))
    chart = figures.overview(hostile, "accuracy")
    assert "<script" not in chart
    assert "&lt;script&gt;" in chart
    assert "<script" not in charts.parts("x", "y", [(HOSTILE, 1.0, HOSTILE)])
    assert "<script" not in svg.dot(1, 1, 1, "dot", HOSTILE)


def test_the_training_curves():
    found = list(figures.training(made_results(), made_log()))
    assert [figure.caption for figure in found] == [
        "Loss", "Validation metrics", "Learning rate", "Gradient norm", "Speed",
        "Time by part of the run", "Time by part of a step",
    ]  # fmt: skip
    assert "Train loss went from 1.000 to 0.250; validation at step 1: 1.000" in found[0].chart
    assert list(figures.training(made_results(), [])) == []


def test_a_metric_that_is_no_share_has_no_overview():
    results = changed(made_results(), lambda values: values["test"].update(accuracy=-0.2))
    assert figures.overview(results, "accuracy") is None


def test_the_confusion_matrix_is_shaded_by_the_share_of_the_row():
    results = made_results(2, test_noise=0.0)
    [first, second] = figures.confusion_matrix(results)
    assert [cell["rows"] for cell in first["cells"]] == [3, 0]
    assert (first["cells"][0]["share"], first["cells"][0]["kind"]) == (1.0, "right full")
    assert second["cells"][0]["kind"] == " none"
    assert figures.confusion_matrix(made_results(40)) == []


def test_a_range_test_marks_its_rate():
    rates = [10.0**power for power in (-4, -3, -2, -1)]
    test = {"stage": 1, "rates": rates, "losses": [1.0, 0.9, 0.8, float("nan")],
            "smoothed": [1.0, 0.95, 0.9, 2.0], "lowest": 0.01, "diverged": None,
            "why": "for a test"}  # fmt: skip
    chart = figures.lr_range_chart(LrRange.model_validate(test | {"rate": 0.002}))
    assert "Suggested rate 0.002: for a test." in chart
    assert 'class="rule"' in chart
    beyond = figures.lr_range_chart(LrRange.model_validate(test | {"rate": 3.0}))
    assert 'class="rule"' not in beyond


def test_axes_have_round_ticks():
    assert svg.Axis(0.931, 0.9685, 0, 100).ticks == pytest.approx([0.93, 0.94, 0.95, 0.96, 0.97])
    assert svg.Axis(0, 0, 0, 1).ticks[3] == 0
    axis = svg.Axis(0.014, 1.61, 200, 0, log=True)
    assert axis.ticks[0] <= 0.014
    assert axis.ticks[-1] >= 1.61
    assert 200 >= axis(0.014) > axis(0.1) > axis(1.61) >= 0
    assert svg.Axis(3, 3, 0, 1, log=True).ticks


def test_lines_have_room_for_all_that_they_show():
    series = [charts.Series([(0, 1), (10, 2)], "train"), charts.Series([(5, 1.5)], "test", "other")]
    marks = charts.Marks(across=[(3.0, "target")], down=[(5, "best")])
    chart = charts.lines("t", "d", series, charts.AxisSpec("step"), charts.AxisSpec("y"), marks)
    heights = [float(y) for y in re.findall(r'y1="([\d.-]+)"', chart)]
    assert min(heights) >= 0
    assert all(name in chart for name in ("train", "test", "target", "best"))
    assert chart.count("<circle") == 1  # a series of one point is a dot


def test_differences_are_drawn_around_zero_and_lengths_of_one_number_are_one():
    results = made_results()
    drawn = figures.paired_differences(results)
    assert "than TF-IDF" in drawn
    assert 'class="rule"' in drawn
    one = results.lengths[0].model_copy(update={"shortest": 10, "longest": 10})
    chart = figures.lengths(results.model_copy(update={"lengths": [one]}))
    assert "10 tokens" in chart
    assert "10 to 10" not in chart
