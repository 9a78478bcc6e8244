"""What a model's config.json says, checked for sense before a library builds anything from it.

    problems = find_config_problems(json.loads(text), classifier=True)
    problems = find_size_problems(tree, shapes)       # against the weights' real shapes

`num_hidden_layers: 1000000000` would build layers until the memory ends, and `num_labels` a
dictionary of that size. Nothing here knows one architecture from another.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_DEPTH = 50
MAX_LABELS = 100_000
MAX_LAYERS = 10_000
MAX_SIZE = 2**31
# What may be declared beyond the weights: layers that share weights, and sizes that nothing uses.
FEW_LAYERS = 64
FEW_ROWS = 4096
Count = Annotated[int, Field(ge=0, le=MAX_LAYERS)]
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# Keys whose values are lists or patterns of layers, with numbers that a config repeats them by.
PATTERNS = re.compile(
    r"attention_types|attention_layers|block_sizes|block_repeats|depths|layer_types"
    r"|\w*layers?_(block_)?types?|\w*_pattern"
)
# Keys of published configs whose whole numbers decide no size, and may be huge.
UNBOUNDED = re.compile(r"model_max_length|\w*(theta|base|seed)\w*")
TOKEN_ID = re.compile(r"\w+_token_id")
# Keys whose numbers are of modules, and of rows or columns of weights, whatever the architecture.
OF_MODULES = re.compile(r"n_layers?|num_\w*(layers|experts|blocks|groups)|(n|num)_blocks|layers")
OF_WEIGHTS = re.compile(r"num_labels|dim|d_\w+|n_(embd|inner|heads?)|\w+_(size|dim|heads)")
POSITION_TABLE = re.compile(r"(^|\.)(position_embeddings|embed_positions|wpe)\.weight")
INFINITE = {"time_step_limit"}  # keys of published configs that are infinite and mean it
IMPLEMENTATIONS = re.compile(r"_?\w+_implementation(_internal)?")
# What makes a library load more than this model's own safetensors.
REFUSED = {
    "transformers_weights": "the weights in model.safetensors and no other file",
    "quantization_config": "weights that are not quantized",
    "compression_config": "weights that are not compressed",
}


class _Config(BaseModel):
    """The keys of an encoder that decide how much is built; any other is the architecture's."""

    model_config = ConfigDict(strict=True, extra="allow")

    model_type: str | None = None
    architectures: list[str] | None = None
    hidden_size: Size | list[Size] | None = None
    vocab_size: Size | None = None
    max_position_embeddings: Annotated[int, Field(ge=-1, le=MAX_SIZE)] | None = None
    type_vocab_size: Annotated[int, Field(ge=0, le=MAX_SIZE)] | None = None
    intermediate_size: Size | list[Size] | None = None
    num_hidden_layers: Count | None = None
    num_attention_heads: Size | list[Size] | None = None
    hidden_dropout_prob: Rate | None = None
    attention_probs_dropout_prob: Rate | None = None
    layer_norm_eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    num_labels: Annotated[int, Field(ge=0, le=MAX_LABELS)] | None = None


class _Classifier(_Config):
    """The keys that decide what a classifier predicts."""

    id2label: (
        Annotated[dict[str, str | int | float | bool], Field(max_length=MAX_LABELS)] | None
    ) = None
    label2id: Annotated[dict[str, int], Field(max_length=MAX_LABELS)] | None = None
    problem_type: (
        Literal["single_label_classification", "multi_label_classification", "regression"] | None
    ) = None
    classifier_dropout: Rate | None = None
    pooled_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


def find_config_problems(tree: Any, classifier: bool) -> Iterator[str]:
    """What is wrong with a config.json whatever its weights are: `key: expected …, found …`.

    Args:
        tree: its content.
        classifier: whether it is that of a trained classifier, whose labels count.
    """
    if not isinstance(tree, dict):
        yield f"expected a mapping of keys, found {_shown(tree)}"
        return
    nested = [*_find_nesting(tree)]
    if nested:
        yield from nested
        return
    told: set[str] = set()  # each key has one message
    for problem in _find_all(tree, classifier):
        place = problem.partition(":")[0]
        if place not in told:
            yield problem
        told.add(place)
    if classifier:
        yield from _find_label_problems(tree)


def _find_all(tree: Mapping[str, Any], classifier: bool) -> Iterator[str]:
    """What is wrong with a config and those within it; a key may come more than once."""
    for prefix, part in _configs(tree):
        model = _Classifier if classifier and not prefix else _Config
        yield from _find_fields(part, model, prefix)
        for key, value in part.items():
            yield from _find_number_problems(prefix, part, str(key), value)
    yield from _find_values(tree)


def _find_number_problems(
    prefix: str, part: Mapping[str, Any], key: str, value: Any
) -> Iterator[str]:
    """A number of layers, a pattern of them, a size or a token's id that no config has."""
    place = f"{prefix}{key}"
    if TOKEN_ID.fullmatch(key):
        rows = part.get("vocab_size")
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int) and one < -1:  # which is "none", in some
                yield f"{place}: expected an id of the vocabulary, found {_shown(one)}"
            elif (
                key == "pad_token_id"
                and isinstance(one, int)
                and isinstance(rows, int)
                and one >= rows
            ):
                yield f"{place}: expected an id below vocab_size, {rows:,}, found {one:,}"
    elif PATTERNS.fullmatch(key) and (layers := _count_layers(value)) > MAX_LAYERS:
        yield f"{place}: expected at most {MAX_LAYERS:,} layers, found {_shown(layers)}"
    elif isinstance(value, int) and not isinstance(value, bool):
        if OF_MODULES.fullmatch(key) and not 0 <= value <= MAX_LAYERS:
            yield f"{place}: expected a number from 0 to {MAX_LAYERS:,}, found {_shown(value)}"
        elif OF_WEIGHTS.fullmatch(key) and value < -1:
            yield f"{place}: expected a size, found {_shown(value)}"


def _count_layers(pattern: Any) -> int:
    """How many layers a pattern stands for at most: `[[["global", "local"], 6]]` for twelve."""
    if not isinstance(pattern, list):
        return abs(pattern) if isinstance(pattern, int) else 1
    numbers = [abs(one) for one in pattern if isinstance(one, int)]
    others = sum(_count_layers(one) for one in pattern if not isinstance(one, int))
    return max(others, 1) * max(sum(numbers), 1)


def find_size_problems(tree: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What a config.json declares that its weights do not have.

    Args:
        tree: its content.
        shapes: of the weights, by name.
    """
    largest = max((size for shape in shapes.values() for size in shape), default=1)
    positions = [
        shape[0] for name, shape in shapes.items() if POSITION_TABLE.search(name) and shape
    ]
    problems = []
    for prefix, part in _configs(tree):
        for key, value in part.items():
            if not isinstance(value, int) or isinstance(value, bool):
                continue
            if OF_MODULES.fullmatch(key) and value > max(len(shapes), FEW_LAYERS):
                found = f"no more than {len(shapes):,}, the number of its weights"
            elif OF_WEIGHTS.fullmatch(key) and value > max(largest, FEW_ROWS):
                found = f"no more than {largest:,}, the largest dimension of its weights"
            elif key == "max_position_embeddings" and positions and value > max(positions):
                found = f"no more than {max(positions):,}, the rows of its table of positions"
            else:
                continue
            problems.append(f"{prefix}{key}: expected {found}, found {value:,}")
    return problems


def _configs(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A config and those within it, each with what its keys begin with."""
    yield prefix, tree
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("id2label", "label2id", "auto_map", "document"):
            yield from _configs(value, f"{prefix}{key}.")


def _find_nesting(tree: Any, path: str = "", depth: int = 0) -> Iterator[str]:
    if depth > MAX_DEPTH:
        yield f"{path[:60]}…: expected less nesting, found more than {MAX_DEPTH} levels"
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _find_nesting(value, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(tree, list):
        for value in tree:
            yield from _find_nesting(value, path, depth + 1)


def _find_values(tree: Any, path: str = "") -> Iterator[str]:
    """Numbers that are none or beyond any size, and keys that would load something else."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            place = f"{path}.{key}" if path else str(key)
            if key in REFUSED and value is not None:
                yield f"{place}: expected {REFUSED[key]}, found {_shown(value)}"
            elif IMPLEMENTATIONS.fullmatch(str(key)) and "/" in repr(value):
                yield (
                    f"{place}: expected a word such as sdpa, found {_shown(value)}, which is code "
                    "of another repository"
                )
            elif key not in INFINITE:
                yield from _find_values(value, place)
    elif isinstance(tree, list):
        for value in tree:
            yield from _find_values(value, path)
    elif isinstance(tree, float) and not math.isfinite(tree):
        yield f"{path}: expected a finite number, found {tree}"
    elif (
        isinstance(tree, int)
        and abs(tree) > MAX_SIZE
        and not path.startswith("document.")  # which is checked, and told, where it is read
        and not UNBOUNDED.fullmatch(path.rpartition(".")[2])
    ):
        yield f"{path}: expected a number up to {MAX_SIZE:,}, found {_shown(tree)}"


def _find_fields(tree: Mapping[str, Any], model: type[_Config], prefix: str = "") -> Iterator[str]:
    try:
        model.model_validate(tree)
    except ValidationError as error:
        told = set()
        for one in error.errors():
            name = str(one["loc"][0])
            value = tree.get(name)
            if name not in told and not (isinstance(value, float) and not math.isfinite(value)):
                at = _at(one["loc"][1:])
                said = one["msg"].removeprefix("Input should be ")
                said = f"a number {said}" if said.startswith(("greater", "less")) else said
                yield f"{prefix}{name}{at}: expected {said}, found {_shown(one['input'])}"
            told.add(name)


def _at(path: tuple[int | str, ...]) -> str:
    """Where in a key's value; pydantic also names the kinds that it tried."""
    kinds = re.compile(r".*[\[(-].*|int|str|float|bool")
    return "".join(f".{part}" for part in path if not kinds.fullmatch(str(part)))


def _find_label_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    labels, ids, count = tree.get("id2label"), tree.get("label2id"), tree.get("num_labels")
    if not isinstance(labels, dict) or not all(str(key).isdecimal() for key in labels):
        if isinstance(labels, dict):
            wrong = next(key for key in labels if not str(key).isdecimal())
            yield f"id2label: expected whole numbers as keys, found {_shown(wrong)}"
        return
    by_index = {int(key): name for key, name in labels.items()}
    missing = next((n for n in range(len(labels)) if n not in by_index), None)
    if missing is not None:
        yield (
            f"id2label: expected each of 0 to {len(labels) - 1}, found no {missing}, and "
            f"{max(by_index)} as the last of {len(labels):,}"
        )
    if isinstance(count, int) and count != len(labels):
        yield f"num_labels: expected {len(labels):,}, the labels in id2label, found {count:,}"
    seen: dict[str, int] = {}
    for index, name in sorted(by_index.items()):
        if str(name) in seen:
            yield f"id2label: expected each label once, found {_shown(name)} twice"
            break
        seen[str(name)] = index
    if isinstance(ids, dict) and missing is None and set(map(str, ids)) == set(seen):
        wrong = next((name for name, index in ids.items() if seen[str(name)] != index), None)
        if wrong is not None:
            yield (
                f"label2id: expected the same as in id2label, {seen[wrong]} for {_shown(wrong)}, "
                f"found {_shown(ids[wrong])}"
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
