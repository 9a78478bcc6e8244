"""Whether an error says that memory ran out, whoever raised it, and what to lower.

    with explain_memory_errors("training", "lower train.micro_batch_tokens"):
        ...

Python, NumPy and Arrow raise MemoryError, torch a RuntimeError whose text says it, the system
ENOMEM, ONNX Runtime and safetensors errors of their own. What is made of them is an `InputError`.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.runtime.errors import InputError

SIGNS = re.compile(
    r"""out\ of\ memory | (can't|cannot|can\ not|could\ not|unable\ to|failed\ to)\ allocate
    | not\ enough\ memory | bad[_ ]?alloc(ation)? | DefaultCPUAllocator | os\ error\ 12\b
    | malloc\ of\ size | realloc\ of\ size | could\ not\ create\ a\ (memory|primitive)
    | failed\ to\ map\ segment | can't\ start\ new\ thread | \bENOMEM\b""",
    re.VERBOSE | re.IGNORECASE,
)
GENERAL = (
    "end other programs, or use a machine with more memory; in training, lower "
    "train.micro_batch_tokens, data.max_length or data.max_train_rows, in predicting --tokens or "
    "--window"
)

# What to lower where a run prepares data, builds its model, and trains.
LOWER_DATA = "lower data.max_train_rows, or end other programs"
LOWER_MODEL = (
    "choose a smaller model.source, freeze more of it (model.freeze), or end other programs"
)
LOWER_BATCH = (
    "lower train.micro_batch_tokens, data.max_length or data.max_windows, or freeze more of the "
    "model (model.freeze); the steps stay the same where only train.micro_batch_tokens changes"
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or the one that it follows from, says that memory ran out."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, InputError):
            return False  # it has its message
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        is_any = isinstance(error, (RuntimeError, OSError, ImportError, SystemError))
        from_library = type(error).__module__.split(".")[0] not in ("builtins", "finetune")
        if (is_any or from_library) and SIGNS.search(str(error)):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        seen += 1
    return False


def describe_memory_error(
    error: BaseException, doing: str = "", remedy: str = GENERAL
) -> InputError:
    """The message for such an error.

    Args:
        doing: what ran out of memory, as "training".
        remedy: what to lower.
    """
    detail = str(error).strip().partition("\n")[0].strip().rstrip(".")
    detail = re.sub(r"^\[enforce fail at [^\]]*\]\s*(\.?\s*)", "", detail)[:200]
    known = detail and detail.lower() not in ("out of memory", "std::bad_alloc")
    where = f" while {doing}" if doing else ""
    return InputError(f"out of memory{where}{f' ({detail})' if known else ''}; {remedy}")


@contextmanager
def explain_memory_errors(doing: str, remedy: str) -> Iterator[None]:
    """Turn an error that says that memory ran out into one message.

    Args:
        doing, remedy: as of `describe_memory_error`.

    Raises:
        InputError: for such an error; every other one stays what it is.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise describe_memory_error(error, doing, remedy) from error


def reraise_memory_error(error: BaseException) -> None:
    """For whoever catches every error: let one that says that memory ran out pass as it is.

    Raises:
        BaseException: that error.
    """
    if is_out_of_memory(error):
        raise error
