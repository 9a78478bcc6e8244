"""mkdocs hooks: links that leave docs/ work on the site as they do in the repository.

The pages of docs/ link to code as `../finetune/training/loop.py#L12`, which a code host follows. On
the site, each file that is linked so is a page of its own under source/, with an anchor a line.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", "": "make"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file outside docs/ that a page links to, and for those these link to."""
    waiting = [
        (f"docs/{file.src_uri}", file.content_string) for file in files.documentation_pages()
    ]
    seen: set[str] = set()
    while waiting:
        origin, text = waiting.pop()
        for path in {target(origin, found[1]) for found in LINK.finditer(text)} - seen:
            seen.add(path)
            file = ROOT / path
            if path.startswith("docs/") or not file.is_file():
                continue
            content = file.read_text(encoding="utf-8")
            if file.suffix == ".md":
                waiting.append((path, content))
            else:
                language = LANGUAGES.get(file.suffix, "text")
                content = f"# {path}\n\n````` {{.{language} linenums=1}}\n{content}\n`````\n"
            files.append(File.generated(config, page_of(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point each link that leaves docs/ to the page that stands for the file."""
    uri = page.file.src_uri
    if uri.startswith("source/") and not uri.endswith(".md.md"):
        return markdown  # code: what looks like a link in it is none
    origin = uri.removeprefix("source/").removesuffix(".md") if is_source(uri) else f"docs/{uri}"

    def moved(found: re.Match[str]) -> str:
        path, anchor = target(origin, found[1]), found[2] or ""
        if path.startswith("docs/"):
            to = path.removeprefix("docs/")
        elif (ROOT / path).is_file():
            to = page_of(path)
            anchor = re.sub(r"^#L(\d+)$", r"#__codelineno-0-\1", anchor)
        else:
            return found[0]
        return relpath(to, str(PurePosixPath(uri).parent)) + anchor

    return LINK.sub(moved, markdown)


def target(origin: str, link: str) -> str:
    """The path, from the repository's root, that a link of one of its files leads to."""
    return normpath(str(PurePosixPath(origin).parent / link))


def page_of(path: str) -> str:
    """Where the site has a file of the repository."""
    return f"source/{path}.md"


def is_source(uri: str) -> bool:
    return uri.startswith("source/")
