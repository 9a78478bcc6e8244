"""What only one kind of system has is used in few places, each with a way without it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {
    file.relative_to(ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
    for folder in ("finetune", "scripts")
    for file in sorted((ROOT / folder).rglob("*.py"))
    # What measures this project on a Linux machine.
    if "bench" not in file.parts and "studies" not in file.parts
}
POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {
        "fork", "forkpty", "getuid", "geteuid", "getgid", "getpgid", "setsid", "killpg", "mkfifo",
        "sched_getaffinity", "sched_setaffinity", "statvfs", "uname", "posix_fallocate", "pipe2",
        "getloadavg", "chown", "symlink", "link", "nice", "wait", "waitpid", "O_DIRECTORY",
    },
    "signal": {
        "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL", "SIGALRM", "SIGCHLD", "SIGPIPE", "alarm",
        "pause", "setitimer", "pthread_kill",
    },
}  # fmt: skip
# The places, each of which asks first (`hasattr`, `try`) or copes with an error.
GUARDED = {
    ("finetune/compute/frozen_cache.py", "os.posix_fallocate"),
    ("finetune/compute/hardware_plan.py", "os.sched_getaffinity"),
    ("finetune/inference/server_connections.py", "resource"),
    ("finetune/runtime/atomic_files.py", "os.link"),
    ("finetune/runtime/cost_meter.py", "resource"),
    ("finetune/runtime/folder_lock.py", "fcntl"),
}


def posix_uses(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ({alias.name for alias in node.names} & POSIX_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in POSIX_MODULES:
            yield node.module
        elif isinstance(node, ast.Attribute):
            module = getattr(node.value, "id", "")
            if node.attr in POSIX_NAMES.get(module, ()):
                yield f"{module}.{node.attr}"


def test_what_windows_lacks_is_used_in_known_places():
    assert len(FILES) > 150
    assert {(name, use) for name, tree in FILES.items() for use in posix_uses(tree)} == GUARDED


def opened(tree):
    """Each call that opens a file as text, by its line: what it lacks of encoding and newline."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        of_path = isinstance(node.func, ast.Attribute)
        name = node.func.attr if of_path else getattr(node.func, "id", "")
        # Functions of modules, of ours and of gzip, are no methods of a path.
        if of_path and getattr(node.func.value, "id", "") in {"atomic_files", "os", "gzip"}:
            continue
        given = {word.arg for word in node.keywords}
        if name == "read_text" and of_path:
            yield node.lineno, set() if node.args else {"encoding"} - given
        elif name == "write_text" and of_path:
            yield node.lineno, {"encoding"} - given if len(node.args) < 2 else set()
        elif name == "open":
            values = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            mode = next((v for v in values if isinstance(v, str) and set(v) <= set("rwxabt+")), "")
            # `x.open()` and `x.open(y)` may be of other things than files, such as a page.
            if "b" in mode or (of_path and not mode and "encoding" not in given):
                continue
            needs = {"encoding"} | ({"newline"} if set(mode) & set("wax") else set())
            yield node.lineno, needs - given


def test_every_file_of_text_has_its_encoding():
    calls = [(name, *call) for name, tree in FILES.items() for call in opened(tree)]
    assert len(calls) > 30
    assert [f"{name}:{line} lacks {lacks}" for name, line, lacks in calls if lacks] == []


@pytest.mark.parametrize(
    ("code", "lacks"),
    [
        ("f.open('w')", {"encoding", "newline"}),
        ("f.open('r', encoding='utf-8')", set()),
        ("open(f)", {"encoding"}),
        ("f.read_text()", {"encoding"}),
        ("f.read_text('utf-8')", set()),
        ("f.write_text(x)", {"encoding"}),
    ],
)
def test_the_search_finds_them(code, lacks):
    assert [found for _, found in opened(ast.parse(code))] == [lacks]


def test_no_name_of_a_file_has_a_character_that_windows_refuses():
    names = [path.relative_to(ROOT) for path in (ROOT / "finetune").rglob("*")]
    names += [path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*")]
    assert len(names) > 200
    assert [name for name in names if set(str(name)) & set(':*?"<>|')] == []
    lower = [str(name).lower() for name in names]
    assert len(set(lower)) == len(lower)
