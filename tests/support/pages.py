"""README, CONTRIBUTING and docs/ → their blocks, links and headings."""

import re
import shlex
from dataclasses import dataclass

from tests.support.processes import ROOT

PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")],
    key=lambda page: page.as_posix(),
)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
REASON = re.compile(r"<!-- not run: ([^>]{10,}) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    reason: str | None  # why no test runs it: stands in a comment just before or after it

    def __str__(self):
        return f"{self.page}:{self.line}"

    @property
    def commands(self):
        """The command lines, whole."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        joined = re.sub(r"; do\n\s*(.*?)\n?; done", r"; do \1; done", joined)
        return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]

    @property
    def output(self):
        """The lines that the commands print, as quoted."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return [line for line in joined.splitlines() if not line.startswith("$ ")]


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, language):
    """The blocks of one language, in order."""
    text, found = read(page), []
    for match in FENCE.finditer(text):
        if match[2] != language:
            continue
        before = (
            text[: match.start()].rstrip().splitlines()[-2:]
        )  # another comment may stand between
        after = text[match.end() :].lstrip().splitlines()[:1]
        reason = REASON.search("\n".join([*before, *after]))
        inner = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        line = text[: match.start()].count("\n") + 1
        found.append(Block(page, line, language, inner, reason and reason[1]))
    return found


def words(command):
    """A command line as a shell splits it, without its comment."""
    return shlex.split(command, comments=True)


def without_code(page):
    """The text of a page without its fenced blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", read(page)))


def anchors(page):
    """The anchors of a page's headings, as code hosts and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def links(page):
    """Links within the repository: path and anchor, where there is one."""
    text = FENCE.sub("", read(page))
    return [
        (path, anchor or None)
        for path, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text)
        if "://" not in path
    ]
