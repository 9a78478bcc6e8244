"""Results → `report.html`: one page, whole in itself, that a person can look at and trust.

    write(results, run)

It asks nothing of any network, and a policy in it forbids the browser to. All text from data is
escaped: by jinja2 in the templates of `templates/`, by markupsafe in the charts.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from finetune.reporting import charts, figures, narrative, results_model
from finetune.reporting.narrative import format_metric, percent
from finetune.runtime import atomic_files

PAGES = Path(__file__).parent / "templates"

Results = Mapping[str, Any]
Log = narrative.Log


def write_report(results: results_model.Results, folder: Path) -> None:
    """Draw a run's page, with what else stands in its folder: metrics.jsonl and recipe.yaml."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    page = render(results.as_json(), [json.loads(line) for line in lines], recipe)
    atomic_files.write_text(folder / "report.html", page)


def render(results: Results, log: Log, recipe: str = "") -> str:
    """The page of a run.

    Args:
        results: as `results.json` holds them, with null for numbers that are not finite.
        log: the lines of metrics.jsonl.
        recipe: the text of recipe.yaml.
    """
    main = narrative.main_metric(results)
    names = [name for name in results[results["analysed"]]["intervals"] if name != "loss"]
    return (
        template_environment()
        .get_template("report.html")
        .render(
            r=results,
            main=main,
            names=[*names, "loss"],
            headline=headline(results, main),
            lede=[*lede(results, main)],
            overview=figures.overview(results, main),
            steps=[*narrative.next_steps(results, log)],
            spark_from=math.floor(10 * min(one["f1_interval"][0] for one in results["classes"]))
            / 10,
            heat=figures.heat(results),
            calibration=narrative.calibration_in_words(results),
            reliability=[*figures.reliability(results)],
            abstention=narrative.abstention(results),
            coverage=figures.coverage(results),
            lengths=figures.lengths(results),
            truncation=narrative.truncation(results),
            training=[*figures.training(results, log)],
            loads=loads(results),
            choices=recipe,
        )
    )


def write_seeds_report(found: Results, folder: Path) -> None:
    """Draw the page of a recipe's runs with several seeds, from `seeds.json`."""
    split = "test" if found["test"] else "validation"
    names, main = [name for name in found[split] if name != "loss"], found["main"]
    one = found[split].get(main) or found[split]["loss"]
    rows = [
        charts.Row(f"seed {seed}", value, None, "main", format_metric(main, value))
        for seed, value in zip(found["seeds"], one["values"], strict=True)
    ]
    drawn = charts.whiskers(
        f"{main} of each seed", "; ".join(f"{r.name} {r.note}" for r in rows), rows, main, "{:.3f}"
    )
    spread = "" if one["sd"] is None else f" ± {format_metric(main, one['sd'])}"
    text = (
        template_environment()
        .get_template("seeds.html")
        .render(
            found=found,
            split=split,
            names=[*names, "loss"],
            headline=f"{main.capitalize()} {format_metric(main, one['mean'])}{spread} on {split}",
            overview=drawn if 0 <= one["low"] <= one["high"] <= 1 else None,
        )
    )
    atomic_files.write_text(folder / "report.html", text)


def write_range_report(found: Results, name: str, file: Path) -> None:
    """Draw the page of a range test of the learning rate."""
    text = (
        template_environment()
        .get_template("lr_range.html")
        .render(found=found, name=name, chart=figures.lr_range_chart(found))
    )
    atomic_files.write_text(file, text)


def template_environment() -> Environment:
    """The templates, with autoescape, and what they use."""
    found = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
    )
    script = (PAGES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    found.globals |= {
        "style": Markup((PAGES / "style.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
        "spark": charts.spark,
    }
    found.filters |= {
        "score": score,
        "seconds": narrative.format_seconds,
        "bytes": size,
        "percent": percent,
        "thousands": lambda number: f"{number:,}",
    }
    return found


def score(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def size(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:.0f} MB" if value < 1e9 else f"{value / 1e9:.1f} GB"


def headline(results: Results, main: str) -> str:
    split = results["analysed"]
    value, rows = results[split][main], results[split]["rows"]
    if main == "accuracy":
        return f"Right on {percent(value)} of {rows:,} {_seen(split)} documents"
    return f"{main} {value:.3f} on {rows:,} {_seen(split)} documents"


def _seen(split: str) -> str:
    return "unseen" if split == "test" else "validation"


def lede(results: Results, main: str) -> Iterator[str]:
    """What the score means, and what it is worth."""
    split = results["analysed"]
    pair = results[split]["intervals"][main]
    if pair is not None:
        yield (
            "Other documents of the same kind could have given anything from "
            f"{format_metric(main, pair[0])} to {format_metric(main, pair[1])} (95 % interval)."
        )
    plain = results["baselines"]
    if plain is not None and main in plain["tfidf"]:
        label = plain["majority"]["label"]
        yield (
            f"Always answering ‘{label}’ would score "
            f"{format_metric(main, plain['majority'][main])}; "
            "counting words (TF-IDF, logistic regression) "
            f"{format_metric(main, plain['tfidf'][main])}. " + narrative.worth(results)
        )


def loads(results: Results, folder: str = "model") -> str:
    """Three lines that load the model."""
    code = ", trust_remote_code=True" if results["model"]["custom_code"] else ""
    document = '"A document."'
    if results["data"]["reading"]["text_pair"] is not None:
        document = '{"text": "A text.", "text_pair": "Its second text."}'
    if narrative.is_multi_label(results) and results["thresholds"] is None:  # of an older run
        return (
            "from transformers import pipeline\n\n"
            f'classify = pipeline("text-classification", model="{folder}", top_k=None{code})\n'
            f"[found] = classify([{document}], truncation=True)\n"
            '[one["label"] for one in found if one["score"] >= 0.5]'
        )
    if narrative.is_multi_label(results):
        return (
            "from transformers import pipeline\n\n"
            f'classify = pipeline("text-classification", model="{folder}", top_k=None{code})\n'
            "config = classify.model.config  # a label is given from its own threshold on\n"
            'least = dict(zip(config.id2label.values(), config.document["thresholds"]))\n'
            f"[found] = classify([{document}], truncation=True)\n"
            '[one["label"] for one in found if one["score"] >= least[one["label"]]]'
        )
    return (
        "from transformers import pipeline\n\n"
        f'classify = pipeline("text-classification", model="{folder}"{code})\n'
        f"classify({document}, truncation=True)"
    )
