"""What a run prints of its results: a table, a few sentences, the files, the score."""

import dataclasses
import json

from finetune.config import schema
from finetune.reporting import console_report, results, seeds_report
from finetune.reporting.html_report import write_seeds_report
from tests.unit.reporting.made import changed, made_results


def test_the_results_in_lines_of_80_columns(tmp_path, capsys):
    made = made_results()
    console_report.print_results(made, tmp_path / "run")
    said = capsys.readouterr().out
    low, _ = made.test.intervals["accuracy"]
    score = f"Test accuracy {made.test.metric('accuracy'):.4f} (95 % interval {low:.4f} to"
    assert score in said
    assert said.endswith(f"Report: {tmp_path / 'run' / 'report.html'}\n")
    assert "Temperature 1.50: fitted for a test." in " ".join(said.split())
    table = said.split("\n\n")[0]
    assert all(len(line) <= 80 for line in table.splitlines())
    assert (said.splitlines()[2].split()) == [
        "validation",
        "test",
        "95",
        "%",
        "interval",
        "TF-IDF",
        "majority",
    ]


def test_a_test_split_without_labels(tmp_path, capsys):
    def unlabelled(values):
        values["test"] = {"rows": 9, "labelled": False}
        values |= {"baselines": None, "analysed": "validation"}
        values["calibration"]["test"] = values["abstention"]["test"] = None

    console_report.print_results(changed(made_results(), unlabelled), tmp_path)
    said = capsys.readouterr().out
    assert "test has no labels: its 9 rows were predicted, not scored" in said
    assert "\nValidation accuracy " in said


def test_several_seeds(tmp_path, capsys):
    runs = []
    for seed, accuracy in ((3, 0.5), (4, 0.75)):
        runs.append(tmp_path / f"seed-{seed}")
        made = changed(made_results(), lambda v, a=accuracy: v["test"].update(accuracy=a))
        runs[-1].mkdir()
        results.write_results(made, runs[-1])
    run = dataclasses.make_dataclass("Run", ["name", "seeds"])("tiny", (3, 4))
    recipe = schema.Recipe.model_construct(run=run)
    summary = seeds_report.summarize_seeds(recipe, runs)
    accuracy = summary.test["accuracy"]
    assert (accuracy.values, accuracy.mean, accuracy.low, accuracy.high) == (
        [0.5, 0.75], 0.625, 0.5, 0.75,
    )  # fmt: skip
    assert (summary.main, summary.split, summary.runs) == ("accuracy", "test", ["seed-3", "seed-4"])
    console_report.print_seeds(summary, tmp_path)
    assert "Test accuracy 0.6250 ± 0.1768 (mean and standard deviation of 2 seeds)" in (
        capsys.readouterr().out
    )
    seeds_report.write_seeds(summary, tmp_path)
    found = json.loads((tmp_path / "seeds.json").read_text())
    assert seeds_report.SeedsSummary.model_validate(found) == summary
    write_seeds_report(summary, tmp_path)
    assert 'href="seed-3/report.html"' in (tmp_path / "report.html").read_text()
