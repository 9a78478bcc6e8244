"""The folder that a person means by a model: a run's, a package's, or as it is named.

find_model("runs/bbc_news/A")      # runs/bbc_news/A/model
"""

import os
from pathlib import Path

from finetune.data import local_paths
from finetune.modeling.source_checks import leads_out
from finetune.runtime.errors import InputError
from finetune.runtime.wording import count_of


def find_model(source: str | os.PathLike[str], key: str = "MODEL") -> str:
    """The model folder of a run folder; a model folder, a package's or a Hub id as they are.

    Args:
        key: what the messages begin with. A recipe's `model.source` may be a Hub id that looks like
            the path of a run.

    Raises:
        InputError: where it is a path that does not exist, or holds no model.
    """
    may_be_run = key != "model.source"
    model = local_paths.resolve_model_source(os.fspath(source), key, may_be_run)
    inside = Path(model) / "model"
    if (inside / "config.json").is_file() and not (Path(model) / "config.json").is_file():
        if leads_out(inside):
            raise InputError(
                f"{key}: expected the model folder of the run in {model}, found a link that leads "
                f"out of it; name {inside.resolve()} itself, if you trust it"
            )
        return str(inside)
    if (Path(model) / "recipe.yaml").is_file() and not inside.exists():
        raise InputError(
            f"{key}: {model} is the folder of an unfinished run: it holds no model yet"
        )
    runs = [file.parents[1] for file in Path(model).glob("*/model/config.json")]
    if runs and not (Path(model) / "config.json").is_file():
        newest = max(runs, key=lambda run: run.stat().st_mtime)
        raise InputError(
            f"{key}: {model} holds {count_of(len(runs), 'run')}, and is not a run itself; name "
            f"one, such as the newest, {newest}"
        )
    return model
