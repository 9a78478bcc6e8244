"""What is installed beside this package: its requirements, its extras, and another `finetune`.

Reads metadata alone: nothing that it reports on is imported.
"""

import importlib.util
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "finetune-documents"
OTHER = "finetune"  # another project's distribution, whose package has the same import name


@dataclass(frozen=True)
class Requirement:
    """A library that this package, or one of its extras, asks for.

    Attributes:
        name: as the index has it.
        needs: the versions that fit, such as `>=2.6`; empty: any.
        extra: the extra that asks for it; None: the package itself.
        found: the version that is installed; None: none.
        fits: whether that is one of those.
    """

    name: str
    needs: str
    extra: str | None
    found: str | None
    fits: bool


def read_requirements() -> list[Requirement]:
    """Every requirement, as the metadata of the installed package names it."""
    from packaging.markers import default_environment
    from packaging.requirements import Requirement as Line

    environment = {key: str(value) for key, value in default_environment().items()}
    read = []
    for text in metadata.requires(DISTRIBUTION) or ():
        line = Line(text)
        extras = [*(metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ())]
        asking: list[str | None] = [None, *extras]
        for extra in asking:
            if line.marker is None or line.marker.evaluate(environment | {"extra": extra or ""}):
                found = installed_version(line.name)
                fits = found is not None and line.specifier.contains(found, prereleases=True)
                read.append(Requirement(line.name, str(line.specifier), extra, found, fits))
                break  # what needs no extra fits all of them
    return read


def installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def fits_python() -> bool:
    """Whether this Python is one that the package is made for."""
    from packaging.specifiers import SpecifierSet

    needed = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    return SpecifierSet(needed).contains(platform.python_version(), prereleases=True)


def find_other() -> str | None:
    """The version of the other distribution with this import name; None: it is not installed."""
    return installed_version(OTHER)


def find_overwritten() -> list[str]:
    """The installed files of this package that another distribution, or a person, has changed.

    None of an editable install, which has none.
    """
    changed = []
    for file in metadata.files(DISTRIBUTION) or ():
        if file.hash is not None and file.suffix == ".py":
            here = Path(str(file.locate()))
            if not here.is_file() or not _has_hash(here, file.hash):
                changed.append(file.as_posix())
    return changed


def _has_hash(file: Path, expected: metadata.FileHash) -> bool:
    import base64
    import hashlib

    digest = hashlib.new(expected.mode, file.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == expected.value


def is_importable(module: str) -> bool:
    """Whether there is such a module, without importing it."""
    return importlib.util.find_spec(module) is not None
