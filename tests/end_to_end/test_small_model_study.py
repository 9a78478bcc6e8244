"""The study of small students, and the bench of their speed, on a few rows."""

import json

from scripts.bench import bench_small_models as bench
from scripts.studies import small_model_study as study
from tests.support.runs import reset_accelerate


def test_a_study_and_its_bench(here, monkeypatch, capsys):
    (here / "sets" / "agnews").mkdir(parents=True)
    names = ("sport", "money", "tech")
    for split, count in (("train", 90), ("test", 60)):
        rows = [
            {"text": f"{names[i % 3]} {split} {i}", "label": names[i % 3]} for i in range(count)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (here / "sets" / "agnews" / f"{split}.jsonl").write_text(lines)
    monkeypatch.setattr(study, "VALIDATION", 20)
    monkeypatch.setattr(study, "TEST", 30)
    monkeypatch.setitem(study.ARMS, "student", study.Arm(("model.keep_layers=1",), is_taught=True))
    command = ["sets", "--sets", "agnews", "--labelled", "50", "--unlabelled", "40", "--out", "out"]
    command += ["--arms", "student", "static-student"]
    asked = ["model.source=encoder", "train.threads=1", "train.max_steps=2", "train.epochs=1"]
    reset_accelerate()
    assert study.main([*command, "--seeds", "1", "--keep", *asked]) == 0
    said = capsys.readouterr().out
    table = said.strip().partition("\n\n")[2].strip()
    assert [line.split()[0] for line in table.splitlines()] == [
        "agnews", "teacher", "student", "static-student",
    ]  # fmt: skip
    assert study.main([*command, "--seeds", "2", "--table"]) == 0  # from what was run
    assert capsys.readouterr().out.strip() == table
    seed = here / "out" / "agnews" / "seed-0"
    assert "static:/" in (seed / "runs" / "static-student" / "recipe.yaml").read_text()
    reset_accelerate()
    runs = [str(seed / "runs" / name) for name in ("teacher", "student")]
    data = str(seed / "data" / "test.jsonl")
    assert bench.main([*runs, "--data", data, "--rounds", "1", "--max-loss", "99"]) == 0
    teacher, student, cascade = capsys.readouterr().out.strip().splitlines()[1:]
    assert teacher.split()[2:5:2] == ["1.00", "+0.00"]
    assert student.split()[0] == "student"
    assert cascade.split()[:3] == ["cascade", "of", "student"]
    assert cascade.endswith("%")


def test_the_table_pairs_each_arm_with_its_seed_s_teacher():
    def found(teacher, static):
        accuracies = {"teacher": teacher, "static": static}
        return {arm: {"test": {"accuracy": value}} for arm, value in accuracies.items()}

    whole = {("agnews", 0): found(0.9, 0.88), ("agnews", 1): found(0.92, 0.89)}
    assert "-2.50 ± 0.50 (-2.00, -3.00)" in study.report(whole, ("static",))
