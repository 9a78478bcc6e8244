"""A command in a process whose memory is limited from a certain moment on.

    limited.py MIB PLACE CODE MODULE [word …]

From the first call of PLACE (`package.module:name` or `…:Class.name`) on, the process may have MIB
more than then (RLIMIT_AS), and runs CODE, which may ask for more, in that call. Then MODULE's main.
"""

import importlib
import pathlib
import resource
import sys


def limit(mib):
    """Let this process have so many MiB more than it has now."""
    with pathlib.Path("/proc/self/statm").open(encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (mib << 20),) * 2)


def main():
    mib, place, code, module, *words = sys.argv[1:]
    where, _, path = place.partition(":")
    *parents, name = path.split(".")
    holder = importlib.import_module(where)
    for parent in parents:
        holder = getattr(holder, parent)
    original, calls = getattr(holder, name), []

    def limited(*given, **named):
        if not calls:
            calls.append(1)
            limit(int(mib))
            exec(code, {})
        return original(*given, **named)

    setattr(holder, name, limited)
    sys.argv = [module, *words]
    return importlib.import_module(module).main(words)


if __name__ == "__main__":
    sys.exit(main())
