"""A recipe → what a dry run may do of it: no code from elsewhere, and nothing written to a cache.

with explain_what_is_left_out(recipe):
    data = prepare_data(without_effects(recipe), env)
shown = restore(data.recipe, recipe)     # as the run itself would have it
"""

from collections.abc import Iterator
from contextlib import contextmanager

from finetune.config.schema import Recipe
from finetune.config.trust import without_code
from finetune.evaluation.metrics import build_metric
from finetune.modeling.load_errors import ALLOW_CODE
from finetune.runtime import console
from finetune.runtime.errors import InputError, shorten


def without_effects(recipe: Recipe) -> Recipe:
    """The recipe without trust, without the metrics that need it, and without a token cache."""
    score = recipe.score
    if score.trust_remote_code:
        own = tuple(name for name in score.metrics if build_metric(name) is not None)
        score = score.model_copy(update={"metrics": own})
    cache = recipe.cache.model_copy(update={"tokens": False})
    return without_code(recipe.model_copy(update={"score": score, "cache": cache}))


def restore(prepared: Recipe, recipe: Recipe) -> Recipe:
    """What was prepared, with the settings that were left out.

    Args:
        prepared: with what the documents decide, such as multi-label metrics.
    """
    score = prepared.score
    if recipe.score.trust_remote_code:
        score = recipe.score
    return prepared.model_copy(
        update={"model": recipe.model, "score": score, "cache": recipe.cache}
    )


@contextmanager
def explain_what_is_left_out(recipe: Recipe) -> Iterator[None]:
    """Say which metrics are not loaded; and of a model that needs its own code, that it is not run.

    Raises:
        InputError: for such a model.
    """
    others = [name for name in recipe.score.metrics if build_metric(name) is None]
    if recipe.score.trust_remote_code and others:
        console.print_line(
            f"Not loaded, as a dry run runs no code from elsewhere: {shorten(others)}"
        )
    try:
        yield
    except InputError as error:
        if not recipe.model.trust_remote_code:
            raise
        raise InputError(
            problem.replace(ALLOW_CODE, "which a dry run does not run; train without --dry-run")
            for problem in error.problems
        ) from None
