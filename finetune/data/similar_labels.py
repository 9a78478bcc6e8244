"""Labels that look alike: they differ in case, in characters that nobody sees, or in how an accent
is written. They stay apart, as the data has them; a finding names them, each as it is written.

    find_similar(["sport", "Sport", "money"])    # [["sport", "Sport"]]
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable

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
    return GAPS.sub(" ", text).strip().translate(LOOKALIKES) or label


def find_similar(labels: Iterable[str]) -> list[list[str]]:
    """The groups of labels that look alike, in the order in which they come."""
    groups: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        groups.setdefault(fold_label(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


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
