"""What a run prints of its results: a table, a few sentences, the files, the score."""

import dataclasses
import json

from finetune.compute.hardware_plan import Hardware
from finetune.config import schema
from finetune.reporting import console_report, results, seeds_report
from finetune.reporting.html_report import write_seeds_report
from tests.unit.reporting.made import changed, made_corpus, made_results


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


def test_the_plan_names_the_layers_that_stay_and_what_the_head_is_of(capsys):
    def plan(model, task="classes"):
        recipe = schema.Recipe.model_validate(
            {"data": {"source": "x", "task": task}, "model": {"source": "encoder", **model}}
        )
        hardware = Hardware("cpu", "x", "fp32", "eager", 512, 1, ())
        console_report.print_plan(recipe, hardware, 1, False, made_corpus(("a", "b"))[1])
        return capsys.readouterr().out

    assert "Model  encoder, head linear" in plan({})
    assert "Model  encoder cut to 1 layer, head linear" in plan({"keep_layers": 1})
    assert "Model  encoder cut to layers 0, 2, head linear" in plan({"keep_layers": [0, 2]})
    assert "Model  encoder, head linear of ordered labels" in plan({}, "ordered")


def test_labels_that_are_numbers_are_quoted(capsys):
    for names, said in (
        (("1", "4"), "2 labels in train: '1' 3, '4' 3\n"),
        (("1 star", "2 stars"), "2 labels in train: 1 star 3, 2 stars 3\n"),
    ):
        console_report._print_splits(made_corpus(names)[0])
        assert said in capsys.readouterr().out
