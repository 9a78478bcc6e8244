"""A YAML file, or a value of a command line → plain values, within limits.

    tree, problems = read_yaml(Path("recipe.yaml"), "recipe")
    value = parse_value("[1, 2]")

A recipe may come from anyone. Reading a value takes some 0.1 ms, a few lines of aliases
can stand for billions of values, and deep nesting ends Python's stack. So a text is measured before
it is parsed, and its nodes are counted as the parser makes them, before any value is built.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.scanner import Scanner

from finetune.runtime.errors import InputError, did_you_mean

MAX_BYTES = 2**18
MAX_MARKS = 20_000  # of those that stand between values; a recipe with 5,000 labels has 10,000
MAX_DEPTH = 20  # of lists and mappings; a recipe needs five
MAX_VALUES = 20_000  # with each alias counted as what it stands for

MARKS = (",", ":", "\n", "- ")
TOO_DEEP = f"lists and mappings are nested more than {MAX_DEPTH} deep"


class YAMLLimitError(YAMLError):
    """A text that is larger, or deeper, than a recipe can be."""


class _BoundedScanner(Scanner):
    """Stops at brackets that are too deep: it reads a thousand of them before the first event."""

    def fetch_flow_collection_start(self, *token: Any, **more: Any) -> None:
        if self.flow_level >= MAX_DEPTH:
            raise YAMLLimitError(f"line {self.reader.line + 1}: {TOO_DEEP}")
        super().fetch_flow_collection_start(*token, **more)


class _BoundedComposer(Composer):
    """Stops at the first node beyond a limit, and at an alias for what it stands in."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False  # YAML allows them
        self.values, self.levels = 0, 0
        self.sizes: dict[int, int] = {}  # id of a node with an anchor → the values it stands for

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        line = event.start_mark.line + 1
        before, is_alias = self.values, isinstance(event, AliasEvent)
        if is_alias:
            aliased = self.anchors.get(event.anchor)
            if aliased is not None and id(aliased) not in self.sizes:  # it is still being read
                raise YAMLLimitError(f"line {line}: *{event.anchor} stands for itself")
            self.values += self.sizes.get(id(aliased), 1)  # an unknown one is refused below
        else:
            self.values += 1
        if self.values > MAX_VALUES:
            raise YAMLLimitError(
                f"line {line}: there are more than {MAX_VALUES:,} values, with each alias counted "
                "as what it stands for"
            )
        if self.levels > MAX_DEPTH:
            raise YAMLLimitError(f"line {line}: {TOO_DEEP}")
        self.levels += 1
        node = super().compose_node(parent, index)
        self.levels -= 1
        if not is_alias and event.anchor is not None:
            self.sizes[id(node)] = self.values - before
        return node


def read_yaml(path: Path, what: str) -> tuple[Any, list[str]]:
    """The content of a YAML file, and the problems of keys that are set twice.

    Args:
        what: what messages call the file, such as "recipe".

    Raises:
        InputError: if the file does not exist, or is not YAML, or is beyond the limits.
    """
    text = _read_text(path, what)
    try:
        _check_size(text)
        yaml = _bounded_yaml()
        yaml.allow_duplicate_keys = True
        node = yaml.compose(text)
        # Repeated keys are found on the nodes, which keep them all with their lines.
        problems = [f"{path}: {problem}" for problem in _repeated_keys(node)]
        tree = _construct(yaml, node)
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
    _check_size(text)
    yaml = _bounded_yaml()
    return _construct(yaml, yaml.compose(text))


def _bounded_yaml() -> YAML:
    """YAML 1.2, for one text: `3e-4` is a number and `no` a word."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner, yaml.Composer = _BoundedScanner, _BoundedComposer
    return yaml


def _construct(yaml: YAML, node: Node | None) -> Any:
    """The values of a text's nodes, which are parsed once: most of the time goes there."""
    return None if node is None else yaml.constructor.construct_document(node)


def _check_size(text: str) -> None:
    """
    Raises:
        YAMLLimitError: for a text that would take long to parse, without parsing it.
    """
    if len(text) > MAX_BYTES:
        raise YAMLLimitError(f"there are more than {MAX_BYTES // 1024} KiB of text")
    if sum(text.count(mark) for mark in MARKS) > MAX_MARKS:
        raise YAMLLimitError(
            f"there are more than {MAX_MARKS:,} commas, colons, dashes and ends of lines"
        )


def _read_text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(
                f"{path}: expected a {what} of at most {MAX_BYTES // 1024} KiB, found a larger file"
            )
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
