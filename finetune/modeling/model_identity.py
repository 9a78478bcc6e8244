"""What a model folder must hold to predict as it was trained to, in its `identity.json`.

    write_identity(folder, tokenizer, model.config)
    check_identity(source, "runs/…/model", config, tokenizer)

A tokenizer of another model, or one with another normalizer, gives ids that are all valid and all
wrong: every document gets the same label, and nothing fails. So the folder keeps a hash of what its
tokenizer makes of fixed texts, another of how it makes batches of them, the SHA-256 of each file of
weights, and the number of labels.

Whoever loads a model compares them. The hashes of the tokenizer are of its behaviour and
vocabulary, not of its files, which each release of transformers writes in another way.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune.modeling.load_errors import first_line
from finetune.modeling.source_checks import find_file
from finetune.runtime.console import print_wrapped
from finetune.runtime.errors import InputError, shorten

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

FILE = "identity.json"
FORMAT = 1
OURS = "document"  # the key of config.json that every model of this package has
WEIGHTS = (
    *("*.safetensors", "openvino_model.xml", "openvino_model.bin"),
    *("*.onnx", "*.onnx.data", "onnx/*.onnx", "onnx/*.onnx.data"),
)
REMEDY = "copy the whole model folder again; if it was changed on purpose, delete its identity.json"
# Texts that tell tokenizers apart: scripts, case, accents, digits, blanks, signs, broken words.
PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "THE QUICK Brown fOX; it's \"quoted\" (isn't it?) - well… 3.14, 1,000,000 & 50%!",
    "naïve café Ångström Straße œuvre ﬁne İstanbul ŠĐĆŽ",
    "Cafe\u0301 e\u0301\u0302 \u00a0non-breaking\u00a0 zero\u200bwidth \ufeffmark soft\u00adhyphen",
    "Съешь ещё этих мягких французских булок, да выпей же чаю",
    "敏捷的棕色狐狸跳过懒狗。日本語のテキストと한국어 문장입니다",
    "نص عربي مع تَشْكِيل و עברית בלי ניקוד",
    "हिन्दी में एक वाक्य ภาษาไทยไม่มีช่องว่าง Ελληνικά γλώσσα",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🤷🏽 \U0001f9ff \ue000 \U00020bb7 ①½²㎏",
    "  leading and trailing  \t tabs\nnew\n\nlines\r\n  ",
    "def f(x): return {'a': [1, 2], \"b\": x ** 2}  # https://example.org/a?b=c#d <tag attr='v'/>",
    "pneumonoultramicroscopicsilicovolcanoconiosis Donaudampfschifffahrtsgesellschaftskapitän",
    "supercalifragilistic" * 12,
    "[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <pad> <mask> <unk> <|endoftext|> ▁ ## Ġ @@",
    "0123456789 1999-12-31T23:59:59Z +49 (0)30 123-45 €1.234,56 −7 × 8 ÷ 9 ≈ ∞",
    "",
    "a",
)
PAIRS = ((PROBES[0], PROBES[4]), (PROBES[5], ""), ("one", "two three"))
TRUNCATED = 12  # tokens of the probes that are truncated


class Identity(BaseModel):
    """What `identity.json` holds.

    Attributes:
        tokenizer: `tokenizer_hash`.
        batches: `batches_hash`; None: an older release saved the model.
        weights: name of each file → its SHA-256.
        labels: the number of logits.
        exported_from: of an export, the `weights` of the model that it was made of; None: it is no
            export, or that model had no identity.
        kept_labels: of an export, the share of the labels of that model, on the rows of its check.
        kept_labels_int8: the same of a graph in int8 that lies beside it.
        kept_labels_bf16: the same of OpenVINO's graph where it computes in bf16; None: it was not
            checked in bf16.
    """

    model_config = ConfigDict(strict=True)

    format: Annotated[int, Field(ge=1)] = FORMAT
    tokenizer: str
    batches: str | None = None
    weights: dict[str, str]
    labels: Annotated[int, Field(ge=1)]
    exported_from: dict[str, str] | None = None
    kept_labels: Annotated[float, Field(ge=0, le=1)] | None = None
    kept_labels_int8: Annotated[float, Field(ge=0, le=1)] | None = None
    kept_labels_bf16: Annotated[float, Field(ge=0, le=1)] | None = None


def tokenizer_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """SHA-256 of a tokenizer's vocabulary and of what it makes of the probes.

    Nothing is truncated, so that the longest text it may have does not matter.
    """

    def ids(*texts: str) -> list[int]:
        encoded: Any = tokenizer(*texts, truncation=False, padding=False, verbose=False)
        return [int(one) for one in encoded["input_ids"]]

    behaviour = [
        tokenizer.pad_token_id,
        [ids(probe) for probe in PROBES],
        [ids(first, second) for first, second in PAIRS],
    ]
    vocabulary = sorted((int(one), token) for token, one in tokenizer.get_vocab().items())
    return _hash_values([behaviour, vocabulary])


def batches_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """SHA-256 of what a tokenizer makes beside ids, and of where it truncates and pads."""
    names = sorted(tokenizer.model_input_names)
    short: dict[str, Any] = {"max_length": TRUNCATED, "padding": "max_length", "verbose": False}
    texts = [(PROBES[3],), ("a",), *PAIRS]
    encoded: list[Any] = [tokenizer(*text, truncation="longest_first", **short) for text in texts]
    batches = [{name: list(one[name]) for name in names if name in one} for one in encoded]
    return _hash_values([names, tokenizer.padding_side, tokenizer.truncation_side, batches])


def _hash_values(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write_identity(
    folder: Path,
    tokenizer: "PreTrainedTokenizerBase",
    config: "PretrainedConfig",
    source: str | None = None,
    **kept: Any,
) -> None:
    """Write it into a model folder, all of whose other files are written.

    Args:
        source: the model that it is an export of.
        kept: the shares of that model's labels that it gives, by the names of `Identity`.
    """
    before = None if source is None else read_identity(source)
    labels = len(config.id2label or {})
    identity = Identity(
        tokenizer=tokenizer_hash(tokenizer),
        batches=batches_hash(tokenizer),
        weights=_hash_weights(folder),
        labels=labels,
        exported_from=None if before is None else before.weights,
        **kept,
    )
    _write(folder, identity)


def update_weights(folder: Path) -> None:
    """Note the weights as they are now, where the folder has an identity."""
    identity = read_identity(str(folder))
    if identity is not None:
        _write(folder, identity.model_copy(update={"weights": _hash_weights(folder)}))


def read_identity(source: str, **hub: Any) -> Identity | None:
    """The identity of a folder or Hub id; None where it has none.

    Args:
        hub: `revision` and the like, of `from_pretrained`.

    Raises:
        InputError: where the file cannot be read.
    """
    file = find_file(source, FILE, hub.get("revision"), hub.get("local_files_only", False))
    if file is None:
        return None
    try:
        return Identity.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(
            f"{source}/{FILE}: cannot be read ({first_line(error)}); {REMEDY}"
        ) from None


def check_identity(
    source: str,
    key: str,
    config: "PretrainedConfig",
    tokenizer: "PreTrainedTokenizerBase | None",
    *,
    weights: bool = True,
    tell: bool = False,
    **hub: Any,
) -> None:
    """Compare a model with what it was when it was saved. Models from elsewhere pass.

    Args:
        key: what the messages begin with.
        config: the model's own, not its encoder's.
        tokenizer: None: it is not compared.
        weights: whether to compare them, which reads their files once.
        tell: say so where the model was saved by an older release, and cannot be compared.
        hub: as of `read_identity`.

    Raises:
        InputError: with all that differs.
    """
    is_ours = getattr(config, OURS, None) is not None
    if not (is_ours or Path(source).is_dir()):
        return  # the Hub is asked for no file that it cannot have
    identity = read_identity(source, **hub)
    if identity is None:
        if tell and is_ours:
            print_wrapped(
                f"{source} has no {FILE}, as an older release saved it: whether its tokenizer and "
                "weights are those that it was trained with is not checked",
                mark="  ! ",
            )
        return
    problems = []
    if tokenizer is not None and (made := _compare_tokenizer(tokenizer, identity)):
        problems.append(
            f"the tokenizer in '{source}' is not the one that the model was trained with: it "
            f"makes other {made} of the same texts"
        )
    if config.num_labels != identity.labels:
        problems.append(
            f"config.json in '{source}' names {config.num_labels} labels, and the model was "
            f"trained on {identity.labels}"
        )
    if weights and (wrong := _compare_weights(source, identity, **hub)):
        problems.append(f"the weights in '{source}' are not as they were saved: {shorten(wrong)}")
    if problems:
        raise InputError(f"{key}: {problem}; {REMEDY}" for problem in problems)


def _compare_tokenizer(tokenizer: "PreTrainedTokenizerBase", identity: Identity) -> str | None:
    """What the tokenizer makes otherwise; None: nothing."""
    if tokenizer_hash(tokenizer) != identity.tokenizer:
        return "tokens"
    if identity.batches is not None and batches_hash(tokenizer) != identity.batches:
        return "batches (token types, or the sides where it truncates and pads)"
    return None


def check_files(folder: Path) -> None:
    """Compare the weights alone, before a folder is published. No model library is needed.

    Raises:
        InputError: where they are not as they were saved.
    """
    identity = read_identity(str(folder))
    if identity is not None and (wrong := _compare_weights(str(folder), identity)):
        raise InputError(
            f"{folder}: the weights are not as they were saved: {shorten(wrong)}; {REMEDY}"
        )


def _compare_weights(source: str, identity: Identity, **hub: Any) -> list[str]:
    wrong = []
    for name, recorded in identity.weights.items():
        named = PurePosixPath(name).name == name.removeprefix("onnx/")  # and no path out of it
        file = find_file(source, name, hub.get("revision"), True) if named else None
        if file is None:
            wrong.append(f"{name} is missing")
        elif hash_file(file) != recorded:
            wrong.append(f"{name} differs")
    if Path(source).is_dir():
        there = {_relative(file, Path(source)) for file in _weight_files(Path(source))}
        wrong += [f"{name} was added" for name in sorted(there - identity.weights.keys())]
    return wrong


def _weight_files(folder: Path) -> list[Path]:
    return sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))


def _hash_weights(folder: Path) -> dict[str, str]:
    return {_relative(file, folder): hash_file(file) for file in _weight_files(folder)}


def _relative(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def hash_file(file: Path) -> str:
    """The SHA-256 of a file, computed once as long as it stays as it is."""
    state = file.stat()
    return _hash_version(file.resolve(), state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(64)  # an export loads the same model several times
def _hash_version(file: Path, size: int, changed: int, inode: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(folder: Path, identity: Identity) -> None:
    text = identity.model_dump_json(indent=2, exclude_none=True) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8", newline="\n")
