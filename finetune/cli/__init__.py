"""The command lines: one module a command, each with `build_parser(prog)` and `main(arguments)`.

Whatever imports this package is a command, which from here on prints every text to any terminal,
and no library of which reports to its maker.
"""

from finetune.runtime import telemetry
from finetune.runtime.streams import prepare_streams

telemetry.turn_off()
prepare_streams()
