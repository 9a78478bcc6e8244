"""Text without columns: a document a line, or the file as one document."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from finetune.data.formats import bounded
from finetune.data.formats.encodings import find_wide_encoding, is_utf_8, strip_boms
from finetune.data.formats.file_row import FileRow, RowReader
from finetune.data.formats.source import DataSource, ReadProgress, decode, open_bytes


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
        for number, line in enumerate(bounded.bounded_lines(self._stream), start=1):
            if line is None:
                yield FileRow("line", number, bounded.too_long())
                continue
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
        content = self._stream.read(bounded.LONGEST_LINE + 1)
        if len(content) > bounded.LONGEST_LINE:
            yield FileRow("", 1, bounded.too_long("document"))
            return
        if is_utf_8(self.source.encoding) and find_wide_encoding(content) is not None:
            # Its zero bytes would pass for UTF-8. As none is text, the document counts as damaged.
            content = content.replace(b"\0", b"\xff")
        yield FileRow("", 1, decode(strip_boms(content)))
