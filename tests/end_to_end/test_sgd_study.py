"""The study of SGD against AdamW: it runs once what it is asked for, and grids end inside."""

import json

import pytest

from finetune.config import loader
from scripts.studies import sgd_study

WORDS = (
    "model.source=encoder",
    "train.precision=fp32",
    "train.threads=1",
    "train.epochs=1",
    "data.max_length=32",
)


@pytest.fixture
def sets(here):
    """A folder of data sets as the study wants it, of one set."""
    (here / "sets").mkdir()
    (here / "sets" / "trec6").symlink_to(here / "data")
    return here


def test_the_arms_run_once_and_make_a_table(sets, capsys, monkeypatch):
    monkeypatch.setattr(sgd_study, "ADAMW_RATES", (1e-3, 2e-3))
    monkeypatch.setattr(sgd_study, "SGD_RATES", (0.03, 0.1))
    command = ["sets", *WORDS, "--sets", "trec6", "--out", "out", "--arms"]
    assert sgd_study.main([*command, "sgd", "grid", "auto", "--seeds", "2"]) == 0
    done = sorted(str(file.relative_to(sets / "out")) for file in (sets / "out").rglob("*.json"))
    assert done == [
        "trec6/auto/seed-0.json", "trec6/auto/seed-1.json", "trec6/sgd-0.03/seed-0.json",
        "trec6/sgd-0.1/seed-0.json", "trec6/sgd/seed-0.json", "trec6/sgd/seed-1.json",
    ]  # fmt: skip
    found = json.loads((sets / "out/trec6/sgd-0.1/seed-0.json").read_text())
    assert found["lr"] == 0.1
    said = capsys.readouterr().out
    assert said.count("trec6 sgd seed") == 2
    assert "default 0.03" in said
    grid = [
        json.loads((sets / f"out/trec6/sgd-{of}/seed-0.json").read_text()) for of in (0.03, 0.1)
    ]
    best = [max(grid, key=lambda one: one[by])["test"] for by in ("validation", "test")]
    shown = said.splitlines()[-1].split()
    assert [shown[3], shown[6]] == [f"{100 * test:.1f}" for test in best]
    # What stands there is not run again, and a table needs no run at all.
    assert sgd_study.main([*command, "sgd", "--seeds", "2", "--table"]) == 0
    assert "trec6 sgd seed" not in capsys.readouterr().out


def test_one_part_changed_at_a_time(sets, capsys, monkeypatch):
    monkeypatch.setattr(sgd_study, "PARTS", {"no warm-up": ("optim.warmup=0",)})
    command = ["sets", *WORDS, "--sets", "trec6", "--out", "out", "--seeds", "1", "--arms", "parts"]
    assert sgd_study.main(command) == 0
    done = sorted(str(file.relative_to(sets / "out")) for file in (sets / "out").rglob("*.json"))
    assert done == ["trec6/sgd/seed-0.json", "trec6/warmup=0/seed-0.json"]
    assert json.loads((sets / "out" / done[1]).read_text())["words"] == ["optim.warmup=0"]
    *_, defaults, part = capsys.readouterr().out.rstrip().splitlines()
    assert defaults.split()[:2] == ["the", "defaults"]
    assert part.split()[:2] == ["no", "warm-up"]


def test_each_part_is_a_choice_of_the_recipe_and_not_the_default(tmp_path, monkeypatch):
    arms = []
    monkeypatch.setattr(sgd_study.Study, "_seeds", lambda self, name, arm, *words: arms.append(arm))
    known = type("Known", (), {"data": tmp_path, "out": tmp_path, "seeds": 1, "table": True})
    for part in sgd_study.PARTS:
        sgd_study.Study(known, (), None).part("trec6", part)
    assert len({*arms}) == len(sgd_study.PARTS) == 19
    default = loader.load("recipes/ag_news.yaml").model_dump()
    for words in sgd_study.PARTS.values():
        assert loader.load("recipes/ag_news.yaml", words).model_dump() != default


def test_adamw_is_tuned_until_its_best_is_inside(tmp_path, monkeypatch):
    asked = []

    def run(self, name, arm, seed, *words):
        asked.append(words)
        rate = float(words[1].split("=")[1])
        best = 2e-3 if "optim.head_lr_scale=10" in words else 4e-3
        bonus = 0.1 * ("optim.head_lr_scale=10" in words) - 0.1 * (
            "model.freeze=embeddings" in words
        )
        return {"validation": 1 + bonus - abs(rate - best), "test": 0.5, "seconds": 1.0}

    monkeypatch.setattr(sgd_study.Study, "run", run)
    known = type("Known", (), {"data": tmp_path, "out": tmp_path, "seeds": 1, "table": True})
    study = sgd_study.Study(known, (), None)
    picked, _ = study.adamw("trec6")
    assert picked == "optim.lr=0.002, optim.head_lr_scale=10"
    assert all(any("head_lr_scale" in word for word in words) for words in asked)
    one = "optim.head_lr_scale=1"
    plain = [float(words[1].split("=")[1]) for words in asked if words[3:] == (one,)]
    assert plain[:8] == [*sgd_study.ADAMW_RATES, 2e-3, 4e-3, 8e-3]
    scaled = [words[1].split("=")[1] for words in asked if words[3:] == ("optim.head_lr_scale=10",)]
    assert {*scaled} == {"0.004", "0.002", "0.008", "0.001"}
