"""A YAML file, or a value of a command line → plain values, within limits.

    tree, problems = read_yaml(Path("recipe.yaml"), "recipe")
    value = parse_value("[1, 2]")

A recipe may come from anyone. Its size, its depth, and what its aliases stand for are counted while
the parser reads, before any of it is built: a few lines of aliases can stand for billions of
values, and deep nesting ends Python's stack.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    ScalarEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.scanner import Scanner

from finetune.runtime.errors import InputError, did_you_mean

MAX_BYTES = 2**20
MAX_DEPTH = 20  # of lists and mappings; a recipe needs five
MAX_VALUES = 50_000  # with each alias counted as what it stands for


TOO_DEEP = f"lists and mappings are nested more than {MAX_DEPTH} deep"


class YAMLLimitError(YAMLError):
    """A text that is larger, or deeper, than a recipe can be."""


class _BoundedScanner(Scanner):
    """Stops at brackets that are too deep: it reads a thousand of them before the first event."""

    def fetch_flow_collection_start(self, *token: Any, **more: Any) -> None:
        if self.flow_level >= MAX_DEPTH:
            raise YAMLLimitError(f"line {self.reader.line + 1}: {TOO_DEEP}")
        super().fetch_flow_collection_start(*token, **more)


def read_yaml(path: Path, what: str) -> tuple[Any, list[str]]:
    """The content of a YAML file, and the problems of keys that are set twice.

    Args:
        what: what messages call the file, such as "recipe".

    Raises:
        InputError: if the file does not exist, or is not YAML, or is beyond the limits.
    """
    text = _read_text(path, what)
    yaml = _yaml()
    try:
        _check_limits(text)
        # Repeated keys are found on the node tree, which keeps them all with their lines.
        problems = [f"{path}: {problem}" for problem in _repeated_keys(yaml.compose(text))]
        tree = yaml.load(text)
    except YAMLLimitError as error:
        raise InputError(f"{path}: {error}; a {what} needs far less") from None
    except MarkedYAMLError as error:
        line, hint = "", ""
        if error.problem_mark is not None:
            line = f"line {error.problem_mark.line + 1}: "
            hint = "; check the indentation, brackets and quotes of that line"
        raise InputError(f"{path}: {line}not valid YAML: {error.problem}{hint}") from None
    except (YAMLError, ValueError) as error:  # a whole number of 5,000 digits is a ValueError
        raise InputError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    return tree, problems


def parse_value(text: str) -> Any:
    """A value as a command line writes it.

    Raises:
        YAMLError, ValueError: where it is not YAML; YAMLLimitError: beyond the limits.
    """
    _check_limits(text)
    return YAML(typ="safe", pure=True).load(text)


def _yaml() -> YAML:
    """YAML 1.2: `3e-4` is a number and `no` a word."""
    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = True
    return yaml


def _read_text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"{path}: expected a {what} of at most 1 MiB, found a larger file")
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = did_you_mean(path.name, near, f"{what} files in that folder") if near else ""
        raise InputError(f"{path}: no such {what} file{hint}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected UTF-8 text, got {error.reason} at byte {error.start}"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot read the {what}: {error.strerror}") from None


def _check_limits(text: str) -> None:
    """
    Raises:
        YAMLError: as the parser does; YAMLLimitError: beyond a limit, which it names.
    """
    depth, total = 0, 0
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _BoundedScanner
    open_anchors: list[tuple[str | None, int]] = []  # of each open collection, with values so far
    sizes: dict[str, int] = {}  # anchor → the values that it stands for
    events: Iterator[Event] = yaml.parse(text)
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        if isinstance(event, CollectionStartEvent):
            open_anchors.append((event.anchor, total))
            total += 1
            depth += 1
            if depth > MAX_DEPTH:
                raise YAMLLimitError(f"line {line}: {TOO_DEEP}")
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
            anchor, before = open_anchors.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_anchors):
                raise YAMLLimitError(f"line {line}: *{event.anchor} stands for itself")
            total += sizes.get(str(event.anchor), 1)  # an unknown one is the composer's to report
        if total > MAX_VALUES:
            raise YAMLLimitError(
                f"line {line}: there are more than {MAX_VALUES:,} values, with each alias counted "
                "as what it stands for"
            )


def _repeated_keys(node: Node | None, prefix: str = "") -> Iterator[str]:
    if isinstance(node, SequenceNode):
        for number, item in enumerate(node.value, 1):
            yield from _repeated_keys(item, f"{prefix}{number}.")
    if not isinstance(node, MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        line = key.start_mark.line + 1
        if name in lines:
            yield f"{name}: set twice, on lines {lines[name]} and {line}; keep one of them"
        lines.setdefault(name, line)
        yield from _repeated_keys(value, f"{name}.")
