"""Text without columns: a document a line, or the file as one document."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from finetune.data.formats.file_row import FileRow, RowReader
from finetune.data.formats.source import BOM, DataSource, ReadProgress, decode, open_bytes


class LineReader(RowReader):
    """Each line is a document, empty ones too; a line ends at a line feed and nowhere else."""

    def __init__(
        self,
        source: DataSource,
        requested: Sequence[str],
        progress: ReadProgress,
        stack: ExitStack,
    ) -> None:
        super().__init__(source)
        self._stream = open_bytes(source, progress, stack)

    def _read(self) -> Iterator[FileRow]:
        for number, line in enumerate(self._stream, start=1):
            if number == 1:
                line = line.removeprefix(BOM)
            text = decode(line.removesuffix(b"\n").removesuffix(b"\r"))
            yield FileRow("line", number, text)


class DocumentReader(RowReader):
    """The whole file is one document."""

    def __init__(
        self,
        source: DataSource,
        requested: Sequence[str],
        progress: ReadProgress,
        stack: ExitStack,
    ) -> None:
        super().__init__(source)
        self._stream = open_bytes(source, progress, stack, is_one_row=True)

    def _read(self) -> Iterator[FileRow]:
        yield FileRow("", 1, decode(self._stream.read().removeprefix(BOM)))
