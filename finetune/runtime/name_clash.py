"""Another distribution, called `finetune`, has the same import name: say so where it is missed.

from finetune import Regressor    # theirs: ImportError, with a line on why
import finetune.base              # the same, ModuleNotFoundError
"""

import sys


def explain_missing(name: str) -> str:
    """Why `finetune.NAME` is not there, in one line."""
    from finetune.runtime import installation

    said = f"module 'finetune' has no attribute '{name}'"
    other = installation.find_other()
    if other is not None:
        said += (
            f"; this is {installation.DISTRIBUTION}, and the other distribution called "
            f"{installation.OTHER} ({other}) is installed too, with the same import name: keep one "
            "of them in an environment"
        )
    return said


class MissingModules:
    """The last finder of `sys.meta_path`: it is asked for what no other has found.

    Where the other distribution is not installed, Python's own message stands.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        parent, _, last = name.rpartition(".")
        # Python asks each package for these, and copes without.
        if parent != "finetune" or last.startswith("__"):
            return
        from finetune.runtime import installation

        if installation.find_other() is not None:
            # By another name than that of the module: `from finetune import …` would take it for
            # a module that is not there, and say no more than that.
            raise ModuleNotFoundError(explain_missing(last), name=parent)


def explain_missing_modules() -> None:
    """From now on, explain a module that this package lacks and the other may have."""
    if MissingModules not in sys.meta_path:
        sys.meta_path.append(MissingModules)
