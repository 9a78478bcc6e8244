"""Results → the model card, `model/README.md`, with the metadata that the Hub reads.

It says what the model is for, what it was trained on, how good it is and how certain that is, how
to load it and how to reproduce it. It holds label names and numbers, and no document.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from finetune.config import loader
from finetune.config.model_section import STATIC
from finetune.config.schema import Recipe
from finetune.reporting import baseline_comparison, html_report, narrative, number_text
from finetune.reporting.markdown import block, code, escape
from finetune.reporting.number_formats import (
    describe_level,
    format_interval,
    format_score,
    format_seconds,
    percent,
)
from finetune.reporting.parent_text import explain_parent
from finetune.reporting.results_model import Results
from finetune.reporting.tasks_text import each_task, tabulate_tasks
from finetune.runtime import atomic_files
from finetune.runtime.visible_text import visible, visible_line
from finetune.training import folder_mark

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
MOST_LABELS = 60  # that are listed one by one


def write_card(results: Results, recipe: Recipe, source: str, folder: Path) -> None:
    """Put the card into the model folder of a run's folder."""
    saved = loader.to_yaml(_without_paths(loader.load_saved(folder)), whole=False)
    text = build_card(results, recipe, source, saved)
    # Recorded before it is written: `run.overwrite` removes no card that somebody edited.
    folder_mark.record_text(folder, "model/README.md", text.encode())
    atomic_files.write_text(folder / "model" / "README.md", text)


def build_card(results: Results, recipe: Recipe, source: str, saved: str) -> str:
    """The card's whole text.

    Args:
        recipe: its `publish` section may name licence and language.
        source: the encoder's folder or Hub id: its own card has them where the recipe does not.
        saved: what the recipe as it ran changes of the defaults, as YAML.
    """
    head = _on_one_line(metadata(results, recipe, source)).to_yaml()
    body = "\n".join(
        [
            *_introduction(results, recipe),
            *_intended_use(results),
            *_scores(results),
            *_each(results, _label_scores),
            *_each(results, _certainty),
            "## Limitations seen in the data\n",
            *_limitations(results),
            "\n## Training data\n",
            *_training_data(results),
            "\n## Training\n",
            *_training(results, recipe),
            *_reproduction(results, saved),
        ]
    )
    return visible(f"---\n{head}\n---\n\n{body}")


def metadata(results: Results, recipe: Recipe, source: str) -> ModelCardData:
    """The Hub's metadata: what it filters models by, and `model-index` with the scores on test."""
    publish, data, test = recipe.publish, recipe.data, results.test
    own = _own_card(source)
    base, documents = _hub_id(recipe.model.source.removeprefix(STATIC)), _hub_id(data.source)
    name = (publish.repo_id or "").partition("/")[2] or recipe.run.name or "document-classifier"
    scores = [
        EvalResult(
            task_type="text-classification",
            task_name="Text Classification",
            dataset_type=documents or recipe.run.name or "documents",
            dataset_name=documents or recipe.run.name or "documents",
            dataset_config=data.config if documents else None,
            dataset_split="test",
            dataset_revision=data.revision if documents else None,
            metric_type=_hub_metric(metric),
            metric_value=round(value, 6),
            metric_name=metric,
        )
        for metric in test.intervals
        if metric != "loss" and (value := test.metric(metric)) is not None
    ]
    return ModelCardData(
        language=_list(publish.language) or results.data.language or own.get("language"),
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


def _each(results: Results, describe: Callable[[Results], Iterator[str]]) -> Iterator[str]:
    """What is said of the results; of several tasks, of each."""
    if not results.tasks:
        yield from describe(results)
    for task, alone in each_task(results):
        yield f"**{escape(task.name)}**\n"
        yield from describe(alone)


def _introduction(results: Results, recipe: Recipe) -> Iterator[str]:
    encoder = code(_without_path(recipe.model.source))
    interval = results.scores.intervals[narrative.main_metric(results)]
    certainty = "" if interval is None else f" (95 % interval {format_interval(interval)})"
    yield f"# {escape(recipe.run.name or 'document classifier')}\n"
    kind = f"A document classifier with {len(results.data.labels):,} labels"
    if results.tasks:
        kind += (
            f" of {len(results.tasks)} tasks, {', '.join(escape(t.name) for t in results.tasks)}"
        )
    if results.numbers is not None:
        kind = f"A regression model of documents, which predicts ‘{escape(results.data.labels[0])}’"
    yield (
        f"{kind}: {encoder} with a linear head, fine-tuned on "
        f"{results.data.splits['train'].rows:,} documents. "
        f"{narrative.headline(results)}{certainty}.\n"
    )
    loading = html_report.loading_code(results, recipe.publish.repo_id or "model")
    yield f"{block(loading, 'python')}\n"
    if results.model.custom_code:
        yield (
            "`trust_remote_code=True` runs the one modelling file that comes with the weights, "
            "`modeling_document_classifier.py`.\n"
        )


def _intended_use(results: Results) -> Iterator[str]:
    labels = results.data.labels
    yield "## Intended use\n"
    if results.tasks:
        yield "To give documents one label of each task:\n"
        for task, alone in each_task(results):
            labels_of = ", ".join(map(escape, alone.data.labels[:MOST_LABELS]))
            yield f"- {escape(task.name)}: {labels_of}"
        yield ""
    elif results.numbers is None and len(labels) <= MOST_LABELS:
        number = "one or several" if results.data.multi_label else "one"
        order = ", ordered, from the lowest to the highest" * (results.data.task == "ordered")
        yield (
            f"To give documents {number} of these labels{order}: "
            f"{', '.join(map(escape, labels))}.\n"
        )
    predicts = "It predicts one of them for every document, whatever it is about."
    if results.abstention is not None and results.abstention.saved:
        predicts = (
            f"It predicts one of them, or none where its probability is below "
            f"{results.abstention.threshold:.4f} (`document.abstain_below` in config.json)."
        )
    if results.data.multi_label:
        predicts = (
            "It predicts each label whose probability reaches that label's threshold "
            "(`document.thresholds` in config.json), or none."
        )
    if results.tasks:
        predicts = "It predicts one of each task for every document, whatever it is about."
    if results.numbers is not None:
        predicts = (
            f"To predict the number ‘{escape(labels[0])}’ of documents, in the unit of the "
            "training data. It predicts one for every document, whatever it is about."
        )
    yield (
        f"{predicts} It was tested on documents of the kind that it was trained on, and on no "
        "others. Test it on your own documents, and have a person check predictions that matter. "
        f"{_explain_reading(results)}\n"
    )


def _scores(results: Results) -> Iterator[str]:
    validation, test, baselines = results.validation, results.test, results.baselines
    yield "## Scores\n"
    if results.tasks:
        yield from _task_scores(results)
        return
    if baselines is None:
        yield f"On {validation.rows:,} validation documents, which also chose the model:\n"
        yield "| | validation | 95 % interval |\n|---|---|---|"
        for name in validation.intervals:
            value = format_score(validation.metric(name))
            yield f"| {escape(name)} | {value} | {format_interval(validation.intervals[name])} |"
        yield ""
        return
    regression, always = "logistic", f"always '{escape(baselines.majority.label or '')}'"
    if results.numbers is not None:
        regression, always = "ridge", f"always {baselines.majority.label}"
    scored = f"On {test.rows:,} test documents, scored once."
    if results.data.folds:
        scored = (
            f"By cross-validation: each of the {test.rows:,} documents was scored by the one of "
            f"{results.data.folds} models that had not seen its fold. This model was trained on "
            "all of them."
        )
    yield (
        f"{scored} The TF-IDF baseline is a {regression} regression on words and word pairs, "
        "fitted on the same train documents.\n"
    )
    columns = ["test", "95 % interval", *["validation"] * results.is_tuned, "TF-IDF"]
    columns.append(always)
    yield f"| | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for name in test.intervals:
        cells = [format_score(test.metric(name)), format_interval(test.intervals[name])]
        cells += [format_score(validation.metric(name)) for _ in range(results.is_tuned)]
        cells += [format_score(one.metric(name)) for one in (baselines.tfidf, baselines.majority)]
        yield f"| {escape(name)} | {' | '.join(cells)} |"
    if results.levels:
        yield "\nBy level of the labels:\n"
        yield from (f"- {describe_level(level)}" for level in results.levels)
    if results.parent is not None:
        sentences = " ".join(explain_parent(results.parent))
        source = code(_without_path(results.parent.source))
        yield f"\nBeside {source}, whose head it kept: {escape(sentences)}"
    verdict = baseline_comparison.summarize_comparison(results)
    yield f"\n{verdict} {narrative.explain_macro(results)}".rstrip() + "\n"


def _task_scores(results: Results) -> Iterator[str]:
    yield (
        "Each task is scored over the documents that have a label of it; metrics without a task "
        "are the means of the tasks'. The TF-IDF baseline is a logistic regression on words and "
        "word pairs, of each task by itself.\n"
    )
    header, *rows = tabulate_tasks(results)
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    yield from (f"| {' | '.join(map(escape, row))} |" for row in rows)
    yield ""
    for task, alone in each_task(results):
        if alone.baselines is not None:
            verdict = baseline_comparison.summarize_comparison(alone)
            yield f"- {escape(task.name)}: {verdict} {narrative.explain_macro(alone)}".rstrip()
    yield ""


def _certainty(results: Results) -> Iterator[str]:
    if results.numbers is not None:
        yield "## Prediction intervals\n"
        yield f"{number_text.explain_interval(results)}\n"
        return
    yield "## Calibration and abstention\n"
    yield f"{narrative.explain_calibration(results)}\n"
    yield f"{narrative.explain_abstention(results)}\n"


def _label_scores(results: Results) -> Iterator[str]:
    if not 1 <= len(results.classes) <= MOST_LABELS:  # a number has none
        return
    yield f"By label, on {results.analysed}:\n"
    yield "| label | support | precision | recall | F1 | 95 % interval |"
    yield "|---|---|---|---|---|---|"
    for one in results.classes:
        yield (
            f"| {escape(one.label)} | {one.support:,} | {format_score(one.precision, 3)} | "
            f"{format_score(one.recall, 3)} | {format_score(one.f1, 3)} | "
            f"{format_interval(one.f1_interval if one.support else None, 3)} |"
        )
    yield ""


def _limitations(results: Results) -> Iterator[str]:
    yield from _each(results, _label_limitations)
    for finding in results.data.findings:
        if finding.kind in ("leak", "conflicting labels", "rare class", "unused label"):
            other = f" {finding.other}" if finding.other else ""
            yield f"- {finding.split}: {finding.kind}{other}, {finding.count:,}."


def _label_limitations(results: Results) -> Iterator[str]:
    if never := narrative.explain_never_predicted(results, MOST_LABELS):
        yield f"- {escape(never)}"
    worst = narrative.weakest_label(results.classes)
    if worst is not None and worst.f1 is not None and worst.f1 < 1:
        yield f"- Weakest label: {escape(worst.label)}, with an F1 of {worst.f1:.3f}."
    for pair in results.confused_pairs[:3]:
        label, predicted = escape(pair.label), escape(pair.predicted)
        share = f"{percent(pair.share)} of its documents ({pair.rows:,})"
        if results.data.multi_label:
            yield f"- {label} is missed, and {predicted} wrongly predicted, in {share}."
        else:
            yield f"- {label} is predicted as {predicted} in {share}."
    if results.numbers is None:
        yield f"- Truncation: {narrative.explain_truncation(results)}"
    else:
        yield f"- {number_text.explain_errors(results.numbers, results)}"
        yield f"- Truncation: {number_text.explain_length(results.numbers)}"


def _training_data(results: Results) -> Iterator[str]:
    yield f"{code(_without_path(results.data.source))}\n"
    yield "| split | documents | median tokens | longest |\n|---|---|---|---|"
    for name, split in results.data.splits.items():
        yield f"| {name} | {split.rows:,} | {split.median:,} | {split.longest:,} |"


def _training(results: Results, recipe: Recipe) -> Iterator[str]:
    train, hardware = results.train, results.hardware
    documents = results.data.splits["train"].rows
    kept = "The model is that of the last step, as there was no validation split to choose one by"
    if results.is_tuned:
        kept = (
            f"The model is the best by `{recipe.score.monitor}` on validation, that of step "
            f"{train.best_step:,}"
        )
    yield (
        f"{train.steps:,} steps over {documents:,} documents, {train.rows:,} rows in all, in "
        f"{format_seconds(train.seconds)}, on {escape(hardware.name)} in {hardware.precision}. "
        f"{kept}.\n"
    )
    for number, stage in enumerate(train.stages, 1):
        yield (
            f"{number}. {stage.steps:,} steps at a learning rate of at most {stage.lr:g}, frozen: "
            f"{stage.freeze}" + "\n" * (number == len(train.stages))
        )


def _reproduction(results: Results, saved: str) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    yield "## How to reproduce\n"
    yield "This recipe, with defaults for everything else:\n"
    yield f"{block(saved.rstrip(), 'yaml')}\n"
    yield "```console\n$ finetune train recipe.yaml\n```\n"
    yield (
        f"With {versions}, and on the machine that it was trained on, it gives the same weights "
        "(on a GPU, up to the order in which floats are added). "
        f"SHA-256 of the documents: `{results.hashes.data}`; of the weights: "
        f"`{results.hashes.weights}`."
    )


def _explain_reading(results: Results) -> str:
    """The sentences of the report, whose template is the recipe's."""
    text, template = narrative.explain_reading(results), results.data.reading.template
    return text if template is None else text.replace(template, escape(template))


def _on_one_line(data: ModelCardData) -> ModelCardData:
    """The metadata without line ends and control characters in any of its texts."""

    def of(value: Any) -> Any:
        if isinstance(value, dict):
            return {of(key): of(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [of(inner) for inner in value]
        return visible_line(value) if isinstance(value, str) else value

    return ModelCardData(**of(data.to_dict()))  # type: ignore[no-untyped-call]


def _without_paths(recipe: Recipe) -> Recipe:
    """The recipe without paths of this machine."""
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"source": _without_path(recipe.data.source)}),
            "model": recipe.model.model_copy(update={"source": _without_path(recipe.model.source)}),
            "cache": recipe.cache.model_copy(update={"dir": None}),
        }
    )


def _without_path(source: str) -> str:
    """A Hub id or package as it is; of a path on this machine its last part alone."""
    if source.startswith(STATIC):
        return STATIC + _without_path(source.removeprefix(STATIC))
    is_name = _hub_id(source) is not None or source.startswith("package:")
    return source if is_name else Path(source).name


def _list(names: tuple[str, ...] | None) -> list[str] | None:
    return None if names is None else [*names]


def _hub_id(source: str) -> str | None:
    """The source where it is a Hub id, not a path that looks like one."""
    return source if HUB_ID.fullmatch(source) and not Path(source).exists() else None


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
