"""The page of a sweep: each chart for what it shows, settings escaped, the best in words."""

import json

from finetune.tuning import sweep_report

FOUND = {
    "recipe": "many", "metric": "accuracy", "direction": "maximize", "seed": 0,
    "pruner": "median", "sampler": "TPE", "best": 2, "winner": None,
    "space": {"optim.lr": {"log": [0.001, 0.3]}, "optim.schedule": {"choice": ["linear", "<b>"]}},
    "importance": {"optim.lr": 0.9, "optim.schedule": 0.1},
    "trials": [
        {
            "number": n, "state": "pruned" if n == 3 else "complete",
            "value": None if n == 3 else 0.8 + 0.01 * n, "scorings": [0.7, 0.8],
            "seconds": 3.0 + n, "why": "after 2 scorings" if n == 3 else None,
            "settings": {"optim.lr": 0.001 * 1.3**n, "optim.schedule": ["linear", "<b>"][n % 2]},
        } for n in (0, 1, 2, 3)
    ],
}  # fmt: skip
SPREAD = {"values": [0.8, 0.9], "mean": 0.85, "sd": 0.0707, "low": 0.8, "high": 0.9}
WINNER = {
    "recipe": "many", "seeds": [0, 1], "runs": ["seed-0", "seed-1"], "main": "accuracy",
    "validation": {"accuracy": SPREAD}, "test": {"accuracy": SPREAD}, "folder": "winner/trial-0002",
}  # fmt: skip


def test_the_page_has_its_charts_and_escapes_settings(tmp_path):
    sweep_report.write_sweep_report(FOUND, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count('<svg class="chart"') == 4
    assert "<b></td>" not in text
    assert "Accuracy 0.8200 on validation, best of 4 trials" in text
    for heading in ("Optimization history", "Hyperparameter importance", "Parallel coordinates"):
        assert heading in text
    assert json.loads((tmp_path / "sweep.json").read_text()) == FOUND


def test_the_best_recipe_in_words():
    text = sweep_report.format_sweep(FOUND | {"winner": WINNER})
    assert "3 trials complete, 1 pruned, 18 s in all" in text
    assert "Best recipe, 2 seeds: test accuracy 0.8500 ± 0.0707" in text
    assert text.splitlines()[1].split()[:2] == ["2", "0.8200"]
