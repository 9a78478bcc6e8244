"""The command lines: one module a command, each with `build_parser(prog)` and `main(arguments)`.

Whatever imports this package is a command, which from here on prints every text to any terminal.
"""

from finetune.runtime.streams import prepare_streams

prepare_streams()
