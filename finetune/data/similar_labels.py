"""Labels that look alike: they differ in case, in characters that nobody sees, or in how an accent
is written. A finding names them, each as it is written; they stay apart, as the data has them, or
become one label where the recipe says so (`data.similar_labels: merge`).

    find_similar(["sport", "Sport", "money"])               # [["sport", "Sport"]]
    merge_similar({"sport": 12, "Sport": 3, "money": 9})    # {"Sport": "sport"}
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from finetune.config import schema
from finetune.config.label_tasks import MARK

# The rows that decide of each label, and the labels that stay → what labels become.
Merge = Callable[[Mapping[str, int], Sequence[str]], dict[str, str]]

# Letters of other scripts that look like Latin ones.
LOOKALIKES = str.maketrans("авекмнорстухіјѕԁαβεικνορτυχ", "abekmhopctyxijsdabeikvoptux")
INVISIBLE = ("Cc", "Cf", "Mn", "Me", "Zl", "Zp")  # Unicode's categories, marks over letters too
GAPS = re.compile(r"[\s_\u2010-\u2015-]+")


def fold_label(label: str) -> str:
    """What is left of a label when all is taken away by which look-alikes may differ."""
    text = unicodedata.normalize("NFKC", label).casefold()
    text = "".join(
        character
        for character in unicodedata.normalize("NFKC", text)
        if unicodedata.category(character) not in ("Cc", "Cf") or character.isspace()
    )
    left = GAPS.sub(" ", text).strip().translate(LOOKALIKES)
    return left or unicodedata.normalize("NFKC", label)  # of nothing that anybody sees


def find_similar(labels: Iterable[str]) -> list[list[str]]:
    """The groups of labels that look alike, in the order in which they come."""
    groups: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        groups.setdefault(fold_label(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def merge_similar(
    counts: Mapping[str, int],
    separator: str | None = None,
    tasks: bool = False,
    kept: Sequence[str] = (),
) -> dict[str, str]:
    """What labels become that look like another: that one of a group which most rows have.

    Args:
        counts: of each label the rows that decide; of as many, the first is taken.
        separator: between the levels of a label, each of which is merged: `Account/open` beside
            `account/close` becomes `account/open`.
        tasks: whether labels are of several columns, as `column: label`; those of two stay apart.
        kept: labels that the recipe names: they stay as they are, and others become them.
    """

    def fold(label: str) -> tuple[str, ...]:
        if tasks:
            column, _, name = label.partition(MARK)
            return (f"{column}{MARK}{fold_label(name)}",)
        return tuple(map(fold_label, label.split(separator) if separator else [label]))

    spelled: dict[tuple[str, ...], Counter[str]] = {}  # node → its rows by how it is written
    for label, count in counts.items():
        node = fold(label)
        for i, part in enumerate(label.split(separator) if separator else [label]):
            spelled.setdefault(node[: i + 1], Counter())[part] += count
    chosen = {node: max(names, key=names.__getitem__) for node, names in spelled.items()}
    named: dict[tuple[str, ...], str] = {}
    for label in kept:
        named.setdefault(fold(label), label)
    merged: dict[str, str] = {}
    for label in counts:
        node = fold(label)
        parts = [chosen[node[: i + 1]] for i in range(len(node))]
        new = named.get(node, (separator or "").join(parts))
        if new != label and label not in kept:
            merged[label] = new
    return merged


def merge_of(data: schema.Data) -> Merge | None:
    """How a recipe has labels merged that look alike; None: they stay apart."""
    if data.similar_labels != "merge":
        return None
    return lambda counts, kept: merge_similar(counts, data.hierarchy, data.tasks is not None, kept)


def show_label(label: str) -> str:
    """A label in quotes, with codes for what nobody sees: `'sport\\u200b'`."""
    shown = "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in INVISIBLE
        or (unicodedata.category(character) == "Zs" and character != " ")
        else character
        for character in label
    )
    return f"'{shown}'"


def find_joined(labels: Collection[str]) -> tuple[str, list[str]] | None:
    """What seems to separate several labels in one, and the labels that seem so.

    Several of them have the mark, each part of these is a label or in another of them, and there
    are fewer parts than labels: 'Paris, France' beside 'Rome, Italy' is a name.
    """
    for mark in (";", "|", ","):
        parts = {label: [part.strip() for part in label.split(mark)] for label in labels}
        joined = [label for label, names in parts.items() if len(names) > 1 and all(names)]
        counts = Counter(name for names in parts.values() for name in {*names})
        is_shared = all(counts[name] > 1 for label in joined for name in parts[label])
        if len(joined) > 1 and is_shared and len(counts) < len(labels):
            return mark, joined
    return None


def show_apart(labels: Iterable[str]) -> list[str]:
    """Several that look alike; letters of another script than Latin get their codes too."""
    shown = [(label, show_label(label)) for label in labels]
    latin = any(label.isascii() for label, _ in shown)
    return [
        f"'{label.encode('unicode_escape').decode()}'"
        if latin and not label.isascii() and label.translate(LOOKALIKES).isascii()
        else text
        for label, text in shown
    ]
