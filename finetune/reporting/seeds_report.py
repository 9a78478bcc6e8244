"""The runs of several seeds → `seeds.json`: the mean and the spread of their scores.

recipe, seeds       as the recipe gives them
runs                the folder of each seed's run
main                the metric that a report names first
validation, test    for each metric its values in the order of the seeds, mean, sd (the standard
                    deviation of one run, n - 1 in the denominator; null for one seed), low, high
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.config.schema import Recipe
from finetune.reporting import narrative
from finetune.runtime.console import format_table

Results = Mapping[str, Any]


def summarize_seeds(choices: Recipe, folders: Sequence[Path]) -> dict[str, Any]:
    """What `seeds.json` holds, from the runs' `results.json`."""
    results = [json.loads((folder / "results.json").read_text("utf-8")) for folder in folders]
    found: dict[str, Any] = {
        "recipe": choices.run.name,
        "seeds": list(choices.run.seeds or ()),
        "runs": [folder.name for folder in folders],
        "main": narrative.main_metric(results[0]),
    }
    for split in ("validation", "test"):
        found[split] = {
            name: _spread([one[split][name] for one in results])
            for name in results[0][split].get("intervals", ())
        }
    return found


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "values": values,
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "low": min(values),
        "high": max(values),
    }


def format_seeds(found: Results) -> str:
    """Mean and spread of each metric, as a table."""
    split = "test" if found["test"] else "validation"
    rows = [(f"{split}, {len(found['seeds'])} seeds", "mean", "sd", "lowest", "highest")]
    for name, one in found[split].items():
        sd = "" if one["sd"] is None else f"{one['sd']:.4f}"
        rows.append(
            (name, f"{one['mean']:.4f}", sd, *(f"{one[end]:.4f}" for end in ("low", "high")))
        )
    return format_table(rows)
