"""Results → the model card, `model/README.md`, with the metadata that the Hub reads.

It says what the model is for, what it was trained on, how good it is and how sure that is, how to
load it and how to make it again. It holds label names and numbers, and no document.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from finetune.config import loader, schema
from finetune.reporting import html_report, narrative, results_model
from finetune.reporting.narrative import percent
from finetune.runtime import atomic_files

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
MOST_LABELS = 60  # that are listed one by one

Results = Mapping[str, Any]


def write_card(
    results: results_model.Results, choices: schema.Recipe, source: str, folder: Path
) -> None:
    """Put the card into the model folder of a run's folder."""
    saved = loader.to_yaml(_without_paths(loader.load(folder / "recipe.yaml")), whole=False)
    text = build_card(results.as_json(), choices, source, saved)
    atomic_files.write_text(folder / "model" / "README.md", text)


def build_card(results: Results, choices: schema.Recipe, source: str, saved: str) -> str:
    """The card's whole text.

    Args:
        results: as in `results.json`.
        choices: the recipe; its `publish` section may name licence and language.
        source: the encoder's folder or Hub id: its own card says them where the recipe does not.
        saved: what the recipe as it ran changes of the defaults, as YAML.
    """
    head = metadata(results, choices, source).to_yaml()
    body = "\n".join(_body(results, choices, saved))
    return f"---\n{head}\n---\n\n{body}"


def metadata(results: Results, choices: schema.Recipe, source: str) -> ModelCardData:
    """The Hub's metadata: what it filters models by, and `model-index` with the scores on test."""
    publish, data = choices.publish, choices.data
    own = _own_card(source)
    base, documents = _hub_id(choices.model.source), _hub_id(data.source)
    name = (publish.repo_id or "").partition("/")[2] or choices.run.name or "document-classifier"
    scores = [
        EvalResult(
            task_type="text-classification",
            task_name="Text Classification",
            dataset_type=documents or choices.run.name or "documents",
            dataset_name=documents or choices.run.name or "documents",
            dataset_config=data.config if documents else None,
            dataset_split="test",
            dataset_revision=data.revision if documents else None,
            metric_type=_hub_metric(metric),
            metric_value=round(results["test"][metric], 6),
            metric_name=metric,
        )
        for metric in (results["test"].get("intervals") or ())
        if metric != "loss" and results["test"][metric] is not None
    ]
    return ModelCardData(
        language=_list(publish.language) or own.get("language"),
        license=publish.license or own.get("license"),
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["text-classification", "document-classification", "finetune-documents"],
        base_model=base,
        datasets=[documents] if documents else None,
        metrics=sorted({score.metric_type for score in scores}) or None,
        model_name=name,
        eval_results=scores or None,
    )


def _body(results: Results, choices: schema.Recipe, saved: str) -> Iterator[str]:
    labels, split = results["data"]["labels"], results["analysed"]
    encoder = _said(choices.model.source)
    yield f"# {_plain(choices.run.name or 'document classifier')}\n"
    yield (
        f"A document classifier with {len(labels):,} labels: `{encoder}` with one linear layer of "
        f"logits, fine-tuned on {results['data']['splits']['train']['rows']:,} documents. "
        f"{html_report.headline(results, narrative.main_metric(results))}"
        f"{_within(results[split]['intervals'][narrative.main_metric(results)])}.\n"
    )
    yield f"```python\n{html_report.loads(results, choices.publish.repo_id or 'model')}\n```\n"
    if results["model"]["custom_code"]:
        yield (
            "`trust_remote_code=True` runs the one modelling file that travels with the weights, "
            "`modeling_document_classifier.py`.\n"
        )
    yield "## Intended use\n"
    if len(labels) <= MOST_LABELS:
        many = "one or several" if narrative.is_multi_label(results) else "one"
        yield f"To give documents {many} of these labels: {', '.join(map(_plain, labels))}.\n"
    gives = "It gives one of them to every document, whatever it is about, and"
    if narrative.is_multi_label(results):
        least = "that label's threshold (`document.thresholds` in config.json)"
        if results["thresholds"] is None:  # of an older run
            least = "one half"
        gives = f"It gives a document each label whose probability is at least {least}, or none; it"
    yield (
        f"{gives} was tested on documents of the kind it was trained on, and on no others: check "
        "it on yours, and have a person "
        f"look where an answer matters. {narrative.reading(results)}\n"
    )
    yield from _scores(results)
    yield "## How sure it is\n"
    yield f"{narrative.calibration_in_words(results)}\n"
    yield f"{narrative.abstention(results)}\n"
    yield "## Limits seen in the data\n"
    yield from _limits(results)
    yield "\n## Training data\n"
    yield from _data(results)
    yield "\n## How it was trained\n"
    train = results["train"]
    picked = "the model of the last step, as there was no validation split to pick one by"
    if narrative.is_tuned(results):
        picked = (
            f"the best model by `{choices.score.monitor}` on validation, of step "
            f"{results['train']['best_step']:,.0f}"
        )
    yield (
        f"{train['steps']:,} steps on {train['rows']:,} documents in "
        f"{narrative.format_seconds(train['seconds'])}, on {_plain(results['hardware']['name'])} "
        "in "
        f"{results['hardware']['precision']}; {picked}.\n"
    )
    for number, stage in enumerate(train.get("stages", ()), 1):
        yield (
            f"{number}. {stage['steps']:,} steps at a rate of at most {stage['lr']:g}, frozen: "
            f"{stage['freeze']}" + "\n" * (number == len(train["stages"]))
        )
    yield "## How to reproduce\n"
    yield "This recipe, with all else as by default:\n"
    yield f"```yaml\n{saved.rstrip()}\n```\n"
    yield "```console\n$ accelerate launch finetune/run.py recipe.yaml\n```\n"
    yield (
        "With "
        + ", ".join(f"{name} {version}" for name, version in results["versions"].items())
        + ", and on the machine that it was trained on, it gives the same weights (on a GPU, up "
        "to the order in which floats are added). "
        f"SHA-256 of the documents: `{results['hashes']['data']}`; of the weights: "
        f"`{results['hashes']['weights']}`."
    )


def _scores(results: Results) -> Iterator[str]:
    validation, test, plain = results["validation"], results["test"], results["baselines"]
    yield "## Scores\n"
    if not test["labelled"]:
        yield f"On {validation['rows']:,} validation documents, which also picked the model:\n"
        yield "| | validation | 95 % interval |\n|---|---|---|"
        for name in validation["intervals"]:
            value = html_report.score(validation[name])
            yield f"| {_plain(name)} | {value} |{_cell(validation, name)}|"
        yield ""
    else:
        label = _plain(plain["majority"]["label"])
        scored = f"On {test['rows']:,} test documents, scored once"
        if many := results["data"].get("folds"):
            scored = (
                f"By cross-validation: each of the {test['rows']:,} documents was judged by the "
                f"one of {many} models that had not seen its part; this one learned from all"
            )
        yield (
            f"{scored}; TF-IDF is words and word pairs under a logistic regression, fitted on the "
            "same train documents.\n"
        )
        tuned = narrative.is_tuned(results)
        middle = " validation |" * tuned
        yield f"| | test | 95 % interval |{middle} TF-IDF | always '{label}' |"
        yield "|---|---|---|" + "---|" * tuned + "---|---|"
        for name in test["intervals"]:
            others = [plain[of].get(name) for of in ("tfidf", "majority")]
            others = [*[validation.get(name)] * tuned, *others]
            yield (
                f"| {_plain(name)} | {html_report.score(test[name])} |{_cell(test, name)}| "
                + " | ".join(html_report.score(value) for value in others)
                + " |"
            )
        yield f"\nCompared document by document: {narrative.against_baseline(results)}.\n"
    if len(results["classes"]) <= MOST_LABELS:
        yield f"By label, on {results['analysed']}:\n"
        yield "| label | documents | precision | recall | F1 | 95 % interval |"
        yield "|---|---|---|---|---|---|"
        for one in results["classes"]:
            low, high = one["f1_interval"]
            yield (
                f"| {_plain(one['label'])} | {one['support']:,} | {one['precision']:.3f} | "
                f"{one['recall']:.3f} | {one['f1']:.3f} | {low:.3f} to {high:.3f} |"
            )
        yield ""


def _limits(results: Results) -> Iterator[str]:
    worst = narrative.weakest(results)
    yield f"- Weakest label: {_plain(worst['label'])}, with an F1 of {worst['f1']:.3f}."
    for pair in results["confused_pairs"][:3]:
        if narrative.is_multi_label(results):
            yield (
                f"- {_plain(pair['label'])} is missed where {_plain(pair['predicted'])} is wrongly "
                f"given, in {percent(pair['share'])} of its documents ({pair['rows']:,})."
            )
            continue
        yield (
            f"- {_plain(pair['label'])} is taken for {_plain(pair['predicted'])} in "
            f"{percent(pair['share'])} of its documents ({pair['rows']:,})."
        )
    yield f"- Truncation: {narrative.truncation(results)}"
    for finding in results["data"]["findings"]:
        if finding["kind"] in ("leak", "conflicting labels", "rare class", "unused label"):
            other = f" {finding['other']}" if finding["other"] else ""
            yield f"- {finding['split']}: {finding['kind']}{other}, {finding['count']:,}."


def _data(results: Results) -> Iterator[str]:
    source = results["data"]["source"]
    yield f"`{_said(source)}`\n"
    yield "| split | documents | median tokens | longest |\n|---|---|---|---|"
    for name, split in results["data"]["splits"].items():
        yield f"| {name} | {split['rows']:,} | {split['median']:,} | {split['longest']:,} |"


def _within(pair: list[float] | None) -> str:
    return "" if pair is None else f" (95 % interval {pair[0]:.4f} to {pair[1]:.4f})"


def _cell(scores: Mapping[str, Any], name: str) -> str:
    pair = scores["intervals"][name]
    return " " if pair is None else f" {pair[0]:.4f} to {pair[1]:.4f} "


def _plain(text: str) -> str:
    """A text from data, so that Markdown and HTML take it for text, on one line."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(re.sub(r"([\\`*_|\[\]#])", r"\\\1", escaped).split())


def _without_paths(choices: schema.Recipe) -> schema.Recipe:
    """The recipe without where things stand on this machine."""
    return choices.model_copy(
        update={
            "data": choices.data.model_copy(update={"source": _said(choices.data.source)}),
            "model": choices.model.model_copy(update={"source": _said(choices.model.source)}),
            "cache": choices.cache.model_copy(update={"dir": None}),
        }
    )


def _said(source: str) -> str:
    return _hub_id(source) or _said_source(source)


def _list(names: tuple[str, ...] | None) -> list[str] | None:
    return None if names is None else [*names]


def _hub_id(source: str) -> str | None:
    """The source where it is a Hub id, not a path that looks like one."""
    return source if HUB_ID.fullmatch(source) and not Path(source).exists() else None


def _said_source(source: str) -> str:
    """A package as it stands; of a path on this machine its last part alone."""
    return source if source.startswith("package:") else Path(source).name


def _hub_metric(name: str) -> str:
    """The Hub's name of a metric: f1 for f1_macro."""
    return re.sub(r"_(macro|micro|weighted)$", "", name)


def _own_card(source: str) -> dict[str, Any]:
    """The metadata of the encoder's own card, where its folder has one."""
    file = Path(source) / "README.md"
    if not file.is_file():
        return {}
    try:
        own = ModelCard(file.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
    except Exception:  # a card by hand may hold anything, and its yaml raises errors of its own
        return {}
    return {
        key: value
        for key in ("license", "language")
        if isinstance(value := own.get(key), (str, list)) and value
    }
