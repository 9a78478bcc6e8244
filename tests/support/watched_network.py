"""A command on a machine whose only network is loopback, and every name that it asks for.

    done, looked_up = run_watched([sys.executable, "…"], cwd=folder)

Linux gives a process its own network and its own /etc/resolv.conf. The server named there is this
module, run as a script: it writes down each name and answers that there is none such. So nothing
can hide: neither a native library, nor a thread that looks up a name without ever connecting.
"""

import contextlib
import ctypes
import fcntl
import json
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

# util-linux's, as root within: with a network and mounts of its own.
UNSHARE = ["unshare", "--map-root-user", "--net", "--mount"]
BIND = 4096  # MS_BIND of <sys/mount.h>
SIOCSIFFLAGS, UP_AND_RUNNING = 0x8914, 0x41  # of <linux/sockios.h> and <net/if.h>
NO_SUCH_NAME = b"\x81\x83"  # the flags of an answer, RFC 1035 section 4.1.1
ADDRESS = ("127.0.0.1", 53)


def why_not():
    """Why no process can have such a network here; None where it can."""
    if shutil.which("unshare") is None:
        return "no `unshare` is installed here"
    try:
        run_watched([sys.executable, "-c", ""])
    except (OSError, subprocess.SubprocessError) as error:
        return f"a process cannot have a network of its own here: {error}"
    return None


def run_watched(command, timeout=600, **options):
    """What `subprocess.run` returns of a command, with its output, and the names it asked for."""
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder, "names.json")
        done = subprocess.run(
            [*UNSHARE, sys.executable, __file__, folder, *map(str, command)],
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,
        )
        if not names.is_file():
            raise subprocess.SubprocessError(done.stderr.strip()[-300:])
        return done, json.loads(names.read_text(encoding="utf-8"))


def _serve(server, names):
    while True:
        query, asker = server.recvfrom(4096)
        name, end = _question(query)
        names.append(name)
        header = query[:2] + NO_SUCH_NAME + query[4:6] + bytes(6)
        server.sendto(header + query[12:end], asker)


def _question(query):
    """The name that a query asks for, and where its question ends."""
    at, parts = 12, []
    while size := query[at]:
        parts.append(query[at + 1 : at + 1 + size].decode(errors="replace"))
        at += 1 + size
    return ".".join(parts), at + 5


def _isolate(folder):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", UP_AND_RUNNING))
    resolve = Path(folder, "resolv.conf")
    resolve.write_text(f"nameserver {ADDRESS[0]}\n", encoding="utf-8")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(bytes(resolve), b"/etc/resolv.conf", None, BIND, None):
        raise OSError(ctypes.get_errno(), "cannot replace /etc/resolv.conf")


def main(folder, *command):
    _isolate(folder)
    names = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(ADDRESS)
        threading.Thread(target=_serve, args=(server, names), daemon=True).start()
        code = subprocess.call(command)
        with contextlib.suppress(OSError):
            Path(folder, "names.json").write_text(json.dumps(names), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
