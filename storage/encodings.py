"""The encodings of text files: UTF-8, by a mark at the beginning, or guessed."""

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from charset_normalizer import CharsetMatch, from_bytes

from storage.errors import BadFile, one_line

ENCODINGS = ("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "mac_roman", "cp850", "cp932", "gb18030", "koi8_r")
"""What files are written in that are not UTF-8, the most frequent first."""
ENOUGH = 2**18  # bytes of lines by which the encoding is guessed


def encoding_of(file: Path) -> str | None:
    """The encoding of a text file that is not UTF-8 and has no mark, guessed from what its bytes would say in each;
    None where it is UTF-8, or UTF-16 with a mark.

    Raises:
        BadFile: it is text in none of `ENCODINGS`, in several, or cannot be read.
    """
    odd: dict[int, bytes] = {}  # the lines that tell, by number
    told = 0
    utf8 = 0  # a line that can hardly be anything else
    try:
        with opened(file) as binary:
            if encoding_by_mark(binary) is not None:
                return None
            for number, line in enumerate(binary, start=1):
                try:
                    line.decode()
                    utf8 = utf8 or (0 if line.isascii() else number)
                except UnicodeDecodeError:
                    odd[number] = line
                    told += len(line)
                    if told > ENOUGH:
                        break
    except (OSError, EOFError, zlib.error) as error:
        raise BadFile(f"{file} cannot be read: {one_line(error)}") from error
    if not odd:
        return None
    if utf8:
        raise BadFile(f"{file} is UTF-8 in line {utf8} and not in line {min(odd)}: mend or remove what is neither.")
    fitting = from_bytes(b"".join(odd.values()), cp_isolation=list(ENCODINGS))
    if not fitting:
        raise BadFile(f"{file} is not UTF-8 text, and it is not clear what it is. Save it as UTF-8.")

    def rank(match: CharsetMatch) -> tuple[float, float, int]:
        return round(match.chaos, 2), -round(match.coherence, 2), ENCODINGS.index(_first_known(match))

    return _first_known(min(fitting, key=rank))


def _first_known(match: CharsetMatch) -> str:
    """The first of `ENCODINGS` in which the text is the same: German letters are equal in several."""
    return next(name for name in ENCODINGS if name in (match.encoding, *match.could_be_from_charset))


def opened(file: Path) -> BinaryIO:
    """A file's bytes, unpacked where its name ends in .gz."""
    return cast(BinaryIO, gzip.open(file) if file.name.lower().endswith(".gz") else file.open("rb"))


def encoding_by_mark(binary: BinaryIO) -> str | None:
    """The encoding that a byte order mark tells: spreadsheets write it, and "Unicode text" in UTF-16."""
    mark = binary.read(3)
    binary.seek(0)
    return "utf-16" if mark[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig" if mark == b"\xef\xbb\xbf" else None


def is_utf8(file: Path) -> bool:
    """Whether all of a text file is UTF-8."""
    with opened(file) as binary:
        try:
            for line in binary:
                line.decode()
        except UnicodeDecodeError:
            return False
    return True
