"""Label names with levels, `account/close` → paths, and how far predictions are right along them.

    tree = Hierarchy.of(("account/open", "account/close", "card"), "/")
    tree.at_level(predictions, 1)     # of each row the node: account, account, card
    tree.level_probabilities(p, 1)    # (rows, nodes): the leaves' probabilities, summed upwards

A node's probability is the sum of those of the labels below it. So no path contradicts itself: a
node is never less probable than what is below it. Numpy alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[Any]


@dataclass(frozen=True)
class Hierarchy:
    """The levels of a label space.

    Attributes:
        separator: between the levels in a label's name.
        paths: of each label the names of its nodes, from the first level to the label itself.
    """

    separator: str
    paths: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, labels: Sequence[str], separator: str) -> "Hierarchy":
        return cls(separator, tuple(path_of(label, separator) for label in labels))

    @cached_property
    def depth(self) -> int:
        """The most levels of a label."""
        return max(map(len, self.paths))

    def level(self, number: int) -> tuple[list[str], Ids]:
        """The nodes of a level, counted from 1, in the labels' order; and each label's.

        A label that ends above the level is a node of it by itself.
        """
        names = [path[min(number, len(path)) - 1] for path in self.paths]
        nodes = [*dict.fromkeys(names)]
        place = {name: i for i, name in enumerate(nodes)}
        return nodes, np.array([place[name] for name in names])

    def at_level(self, ids: Ids, number: int) -> Ids:
        """The nodes of a level that labels belong to. (rows,) class ids → (rows,)"""
        nodes: Ids = self.level(number)[1][ids]
        return nodes

    def level_probabilities(self, probabilities: Floats, number: int) -> Floats:
        """Those of the nodes of a level, (rows, nodes): sums of their labels' (rows, labels)."""
        nodes, of_label = self.level(number)
        summed = np.zeros((len(probabilities), len(nodes)))
        np.add.at(summed.T, of_label, probabilities.T)
        return summed

    def overlaps(self, true: Ids, predicted: Ids) -> tuple[Floats, Floats, Floats]:
        """Of each row the nodes that both paths share, those of the true and of the predicted.

        (rows,) class ids each → (rows,) each
        """
        sizes = np.array([len(path) for path in self.paths], dtype=np.float64)
        shared = np.zeros(len(true))
        for number in range(1, self.depth + 1):
            both = np.minimum(sizes[true], sizes[predicted]) >= number
            shared += both & (self.at_level(true, number) == self.at_level(predicted, number))
        return shared, sizes[true], sizes[predicted]


def path_of(label: str, separator: str) -> tuple[str, ...]:
    """The nodes of a label's name: `a/b/c` → `a`, `a/b`, `a/b/c`."""
    parts = label.split(separator)
    return tuple(separator.join(parts[: i + 1]) for i in range(len(parts)))


def hierarchical_score(kind: str, shared: Floats, true: Floats, predicted: Floats) -> Floats:
    """Precision, recall or F1 over all nodes of all paths (Kiritchenko et al. 2006; as hiclass).

    Args:
        kind: precision, recall or f1.
        shared, true, predicted: nodes in all. (resamples,) each
    """
    below = {"precision": predicted, "recall": true, "f1": (true + predicted) / 2}[kind]
    score: Floats = shared / np.maximum(below, 1e-12)
    return score
