"""The folder below which the runs of a recipe are kept, where `run.dir` names none.

runs_home(recipe.run)      # runs/bbc_news; runs/bbc_news-2 where runs/bbc_news is a run itself
"""

from pathlib import Path

from finetune.config import schema


def runs_home(run: schema.Run) -> Path:
    """`runs/NAME`, or with a number behind it where a run was written there by its `run.dir`.

    A run within another run's folder would be taken for a part of it, and be removed with it.
    """
    base = folder = Path("runs") / (run.name or "run")
    copy = 1
    while (folder / "recipe.yaml").exists():
        copy += 1
        folder = base.with_name(f"{base.name}-{copy}")
    return folder
