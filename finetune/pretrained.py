"""What can go wrong when a pretrained model is read → one clear message each."""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging

from finetune.problems import InputError, some


def check_folder(source: str, key: str) -> None:
    """InputError where a folder lacks what a model folder has."""
    folder = Path(source)
    if not folder.is_dir():
        if folder.exists() or folder.is_absolute() or source.startswith((".", "~")):
            found = "a file" if folder.exists() else "nothing"
            raise InputError(
                f"{key}: expected a model folder with config.json, found {found} at '{source}'"
            )
        return
    names = sorted(path.name for path in folder.iterdir())
    if "config.json" not in names:
        raise InputError(
            f"{key}: expected a model folder with config.json, found {listed(names)} in "
            f"'{source}'; name the folder that save_pretrained wrote"
        )
    if not {"model.safetensors", "model.safetensors.index.json"} & set(names):
        raise InputError(no_safetensors(source, key, [n for n in names if n.endswith(".bin")]))


def listed(names: Sequence[str]) -> str:
    return some(names) if names else "no file"


def no_safetensors(source: str, key: str, pickles: Sequence[str]) -> str:
    return (
        f"{key}: expected weights in model.safetensors, found {listed(pickles)} in '{source}'; "
        "pickles (.bin) can run code when read: load such a model where that is safe, and "
        "save_pretrained writes safetensors"
    )


@contextmanager
def reading(source: str, key: str) -> Iterator[None]:
    """Turn what transformers raises about a source into one message."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise InputError(_reason(error, source, key)) from error


def _reason(error: Exception, source: str, key: str) -> str:
    # By name: only publish.py imports the Hub client.
    names = {type(cause).__name__ for cause in _causes(error)}
    if "trust_remote_code" in str(error):
        return (
            f"{key}: '{source}' comes with its own Python code, which does not run unasked; read "
            "it, then set model.trust_remote_code=true"
        )
    if isinstance(error, SafetensorError):
        return (
            f"{key}: expected weights in model.safetensors, found a damaged file in '{source}' "
            f"({first_line(error)}); get the model again"
        )
    if not Path(source).is_dir():
        if "GatedRepoError" in names:
            return (
                f"{key}: '{source}' is gated on the Hub; accept its terms there, then `hf auth "
                "login`"
            )
        if "RevisionNotFoundError" in names:
            return f"{key}: '{source}' has no such model.revision on the Hub; name one it has"
        if names & {"RepositoryNotFoundError", "HFValidationError"}:
            return (
                f"{key}: expected a model folder or a Hub id, found neither under '{source}'; "
                "check its spelling, or `hf auth login` where it is private"
            )
        if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError"}:
            return (
                f"{key}: expected a model folder or a Hub id, found no folder '{source}', no copy "
                "in the local cache, and no way to the Hub; name a folder, or connect once"
            )
        if "safetensors" in str(error):
            return no_safetensors(source, key, ["other files"])
    return f"{key}: cannot read the model in '{source}': {first_line(error)}"


def _causes(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


@contextmanager
def quietly() -> Iterator[None]:
    """Without progress bars and the report on new weights, which `_check_weights` reads for us."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
