"""Bytes that are not UTF-8: what they probably are, and the same text as UTF-8.

find_wide_encoding(head)                 # "utf-16-le" where a file begins like that
suggest_encodings([b"\\xcc\\xe5\\xd3\\xfd"])  # "perhaps gb18030, as which the first reads '体育'"

Nothing is decoded on a guess: a guess is only named, for a person to decide.
"""

import codecs
import io
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

from finetune.data.cells import clip

BOM = b"\xef\xbb\xbf"
BOM_CHARACTER = "\ufeff"
INVISIBLE = re.compile(r"[\s\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]*")
MARK = "\udcff"  # for what cannot be decoded: in UTF-8 the byte FF, which no text holds
WIDE_BOMS = {  # the longer ones first
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
WIDE = {"utf-32-le": 4, "utf-32-be": 4, "utf-16-le": 2, "utf-16-be": 2}
# Of files in one of the common encodings; where two are as likely, the first.
CANDIDATES = ["gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1252", "cp1250", "cp1251", "koi8_r",
              "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "mac_roman"]  # fmt: skip
ALPHABETS = ("LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "THAI")
IDEOGRAPHS = "\u2e80"  # from here on: Chinese, Japanese and Korean
BESIDE_LETTERS = "…·´™®©°€£§¿¡"
SAMPLE = 2**15  # bytes that are looked at
HEAD = 2**12  # bytes of the beginning, for UTF-16 and UTF-32
BROKEN = 0.2  # the share of control and broken characters from which bytes are hardly UTF-8
LEAST = 8  # Latin characters, without which zero bytes may be anything
NARROW = 0.05  # the least share of Latin characters, such as commas and line ends, in UTF-16


def find_wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by its byte order mark or by where its zero bytes are; else None."""
    for beginning, name in WIDE_BOMS.items():
        if head.startswith(beginning):
            return name
    head = head[:HEAD]
    if b"\0" not in head:
        return None
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    if sum(_is_control(character) or character == "\ufffd" for character in text) < (
        BROKEN * len(text)
    ):
        return None
    for name, width in WIDE.items():
        whole = head[: len(head) // width * width]
        try:
            text = codecs.getincrementaldecoder(name)().decode(whole)
        except UnicodeDecodeError:
            continue
        narrow = sum(character < "\u0100" for character in text)
        if narrow >= max(LEAST, NARROW * len(text)) and not any(map(_is_no_text, text)):
            return name
    return None


def strip_boms(line: bytes) -> bytes:
    """A line without the byte order marks that it begins with.

    There they are never text. Files that were joined have one at the beginning of each.
    """
    while line.startswith(BOM):
        line = line[len(BOM) :]
    return line


def skip_invisible(text: str) -> str:
    """A text from its first character that can be seen: without blanks, marks, zero-width ones.

    Control characters that divide texts go too, such as U+001E between records of JSON.
    """
    return text[cast(Any, INVISIBLE.match(text)).end() :]


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and character not in "\t\r\n"


def _is_no_text(character: str) -> bool:
    return _is_control(character) or unicodedata.category(character) in ("Cn", "Co", "Cs")


def suggest_encodings(samples: Sequence[bytes]) -> str | None:
    """The most likely encodings of some texts that are not UTF-8, and how each reads the first."""
    likely = [*likely_encodings(samples).items()][:2]
    texts = [text for _, text in likely]
    first = _first_difference(texts)
    said = [f"{name}, as which the first reads {_preview(text, first)!r}" for name, text in likely]
    return f"perhaps {' or '.join(said)}" if said else None


def _first_difference(texts: Sequence[str]) -> int:
    """Where readings of the same bytes begin to differ; of one, where it leaves ASCII."""
    if len(texts) > 1:
        pairs = enumerate(zip(*texts, strict=False))
        return next((place for place, (one, *others) in pairs if [one] != others), 0)
    return next((place for text in texts for place, one in enumerate(text) if one > "\x7f"), 0)


def _preview(text: str, place: int, most: int = 38) -> str:
    """The characters around a place, which is left of the middle where words lead up to it."""
    start = place - most // 3 if place > most // 2 else 0
    return "…" * (start > 0) + clip(text[start:], most - (start > 0))


def likely_encodings(samples: Sequence[bytes]) -> dict[str, str]:
    """The encodings that some texts which are not UTF-8 may have, the most likely first.

    Returns: name → the first text as it reads it; each reads it otherwise.
    """
    from charset_normalizer import from_bytes

    if not any(samples):
        return {}
    first = samples[0]
    content = b"\n".join(samples)[:SAMPLE]
    content = b"\n".join([content] * (1 + 256 // (len(content) + 1)))  # few bytes tell too little
    matches = from_bytes(content, cp_isolation=CANDIDATES, threshold=0.5)
    readings: dict[str, str] = {}
    for name in map(_commonest, sorted(matches, key=_likelihood)):
        try:
            readings.setdefault(first.decode(name), name)
        except UnicodeDecodeError:
            continue
    return {name: text for text, name in readings.items()}


def _likelihood(match: Any) -> tuple[float, float, int]:
    """Sort key: the most likely first."""
    # Hundredths of scores say nothing, least of all between code pages that differ in few letters.
    order = CANDIDATES.index(_commonest(match))
    return round(match.chaos + _oddity(str(match)), 1), -round(match.coherence, 1), order


def _oddity(text: str) -> float:
    """The share of characters beyond ASCII that no writer puts where they stand.

    Those are symbols that touch letters (f¸r), letters of another alphabet than their neighbour
    (fьr), and capitals after small letters (fŸr). Ideographs and their marks are left out, as they
    stand beside anything.
    """
    odd = 0
    for before, one, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
        if "\x7f" < one < IDEOGRAPHS:
            odd += any(map(_are_at_odds, (before, one), (one, after)))
    return odd / max(1, sum(character > "\x7f" for character in text))


def _are_at_odds(left: str, right: str) -> bool:
    if max(left, right) >= IDEOGRAPHS:
        return False
    letters = _is_letter(left), _is_letter(right)
    if all(letters):
        return _alphabet(left) != _alphabet(right) or (left.islower() and right.isupper())
    if not any(letters):
        return False
    mark = right if letters[0] else left
    return mark > "\x7f" and mark not in BESIDE_LETTERS and _is_symbol(mark)


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _is_symbol(character: str) -> bool:
    return unicodedata.category(character) in ("Sk", "Sm", "Sc", "So", "Po", "Cc")


def _alphabet(letter: str) -> str:
    """`LATIN` of `ü`; the marks and signs of any alphabet count as Latin."""
    word = unicodedata.name(letter, "").partition(" ")[0]
    return word if word in ALPHABETS else "LATIN"


def _commonest(match: Any) -> str:
    """Of the encodings that read the same in all of it."""
    return min(map(str, {*match.could_be_from_charset} & {*CANDIDATES}), key=CANDIDATES.index)


def is_utf_8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


def to_utf_8(stream: BinaryIO, encoding: str) -> BinaryIO:
    """The text of a stream in UTF-8, with the byte FF for what the encoding does not know."""
    return cast(BinaryIO, io.BufferedReader(_Transcoded(stream, encoding), 2**16))


class _Transcoded(io.RawIOBase):
    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("finetune.mark")
        self._ready = b""
        self._at_end = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._at_end:
            block = self._stream.read(2**16)
            self._at_end = not block
            text = self._decoder.decode(block, final=self._at_end)
            self._ready = text.encode("utf-8", "surrogateescape")
        content, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(content)] = content
        return len(content)


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return MARK, error.end


codecs.register_error("finetune.mark", _mark)
