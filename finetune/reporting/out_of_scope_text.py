"""A detector of documents that no label fits → sentences."""

from collections.abc import Iterator

from finetune.evaluation.analysis_model import Flagged, OutOfScope
from finetune.reporting.evaluation_model import ScopeCounts
from finetune.reporting.number_formats import (
    count_documents,
    format_interval,
    format_score,
    percent,
)

HOW = {
    "max_probability": "the probability of the most probable label",
    "energy": "the energy of its logits",
    "neighbours": "its distance to the nearest train documents",
    "mahalanobis": "its Mahalanobis distance to the nearest label's mean",
}


def explain_out_of_scope(found: OutOfScope | None, analysed: str = "test") -> Iterator[str]:
    """What it goes by, what it finds, and what it takes for out of scope by mistake."""
    if found is None:
        return
    best = next(one for one in found.tried if one.kind == found.kind)
    kept = f" (it keeps {count_documents(found.states)} of train)" if found.states else ""
    yield (
        f"The saved model gives a document no label where none fits, by {HOW[found.kind]}{kept}. "
        "Of the ways tried, this told labels that were held out in turn best: AUROC "
        f"{format_score(best.auroc, 3)} (95 % interval {format_interval(best.interval, 3)})."
    )
    mistaken = (
        f"The threshold takes at most {percent(found.rate)} of documents of known labels for out "
        f"of scope, chosen on {count_documents(found.validation_rows)} of validation"
    )
    if found.test is not None:
        mistaken += f"; on test it was {_describe(found.test)}"
    yield f"{mistaken}."
    if found.given is not None:
        given = found.given
        yield (
            f"Of the documents of `{given.source}`, {_describe(given)} are found: AUROC against "
            f"{analysed} {format_score(given.auroc, 3)} (95 % interval "
            f"{format_interval(given.auroc_interval, 3)})."
        )


def explain_scope(found: ScopeCounts | None) -> Iterator[str]:
    """Of an evaluation's rows: how many the model gives no label."""
    if found is None:
        return
    if found.known is not None:
        yield f"Of documents of known labels, {_describe(found.known)} were taken for out of scope."
    if found.unknown is not None:
        said = f"Of documents of other labels, {_describe(found.unknown)} were told out of scope"
        if found.auroc is not None:
            said += (
                f": AUROC {format_score(found.auroc, 3)} (95 % interval "
                f"{format_interval(found.auroc_interval, 3)})"
            )
        yield f"{said}."


def _describe(found: Flagged) -> str:
    return (
        f"{percent(found.share)} ({found.flagged:,} of {found.rows:,}; 95 % interval "
        f"{percent(found.interval[0])} to {percent(found.interval[1])})"
    )
