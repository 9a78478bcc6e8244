"""A folder of files that cost time to make, and that can always be made anew.

    sweep(folder)                                   # what killed processes left half made
    aside = folder / aside_name("tokens-1f3c")      # where an entry is made, before its rename
    make_room(folder, size, max_bytes)              # the least recently used go first

An entry is a file or a folder whose name ends in the checksum of its file (`tokens-1f3c-9a0b…`), so
that what is damaged has another one. Nothing here may stop a run: who cannot use the cache goes
without it, and says why.
"""

import errno
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from contextlib import suppress
from pathlib import Path

ABANDONED = (
    24 * 3600.0
)  # seconds after which a half-made entry of another machine belongs to no run
BLOCK = 2**22
ENTRIES = ("tokens-*", "prefix-*", "static-*")
HALF_MADE = re.compile(r"\.[^.]+\.(?P<host>[\w-]+)\.(?P<pid>\d+)\.[0-9a-f]+\.new")
REASONS = {
    errno.ENOSPC: "the disk is full; free some space there, or set cache.dir to another disk",
    errno.EDQUOT: "the disk quota is used up; free some space there, or set cache.dir elsewhere",
    errno.EROFS: "the file system is read-only; set cache.dir to another folder",
    errno.EACCES: "permission denied; set cache.dir to another folder",
    errno.EPERM: "not permitted; set cache.dir to another folder",
}
_OWN: set[str] = set()  # the entries that this process makes


def aside_name(name: str) -> str:
    """Where this process makes an entry: a name that tells whose it is."""
    made = f".{name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.new"
    _OWN.add(made)
    return made


def keep_own(name: str) -> None:
    """Have `sweep` spare an entry that this process makes."""
    _OWN.add(name)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half made. What living ones make stays.

    Of this machine's processes it is known whether they live; entries of others go after a day.
    """
    with suppress(OSError):
        for path in folder.glob(".*.new"):
            if _is_abandoned(path):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, where that is possible."""
    with suppress(OSError):  # another process has it mapped (Windows), or removed it
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def touch(path: Path) -> None:
    """Note that an entry was used now."""
    with suppress(OSError):
        os.utime(path)


def make_room(folder: Path, size: int, max_bytes: float | None) -> bool:
    """Have the entries and a new one of `size` bytes take at most `max_bytes`; whether they do.

    The least recently used go first. A process that has one mapped goes on to read it.
    """
    if max_bytes is None:
        return True
    if size > max_bytes:
        return False
    entries = []
    for pattern in ENTRIES:
        for path in folder.glob(pattern):
            with suppress(OSError):
                entries.append((path.stat().st_mtime, size_of(path), path))
    total = size + sum(one for _, one, _ in entries)
    for _, one, path in sorted(entries):
        if total <= max_bytes:
            break
        remove(path)
        total -= one
    return True


def size_of(path: Path) -> int:
    """In bytes, of a file or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir())
    return path.stat().st_size


def checksum(file: Path) -> str:
    """The CRC-32 of a file, which finds damage by accident, in 8 hexadecimal digits."""
    found = 0
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            found = zlib.crc32(block, found)
    return f"{found:08x}"


def describe_failure(error: Exception, folder: Path) -> str:
    """Why the cache cannot be used, and what to do about the cache."""
    code = getattr(error, "errno", None)
    rust = re.search(r"\(os error (\d+)\)", str(error))  # of safetensors
    code = int(rust[1]) if rust is not None else code
    system = os.strerror(code).lower() if code is not None else str(error).partition("\n")[0]
    return f"{folder} (cache.dir): {REASONS.get(code or 0, f'{system}; set cache.dir elsewhere')}"


def _is_abandoned(path: Path) -> bool:
    if path.name in _OWN:
        return False
    parts = HALF_MADE.fullmatch(path.name)
    if parts is not None and parts["host"] == _host() and not _is_alive(int(parts["pid"])):
        return True
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > ABANDONED
    return False


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # an earlier process of that number: what this one makes is known
    if os.name == "nt":
        return True  # there, asking would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _host() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname()) or "host"
