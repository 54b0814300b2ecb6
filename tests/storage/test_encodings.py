"""Which encoding a file of somebody's is in."""

import gzip
from pathlib import Path

import pytest

from storage.encodings import encoding_of
from storage.errors import BadFile
from storage.rows import read_rows

GERMAN = (
    "Nr.;Anliegen;Amt\n1;Die Straße ist gesperrt, die Bürger ärgern sich – seit März;Öffentliches\n2;Laub;Grün\n"
    "3;Müll liegt vor der Tür, größer als üblich;Grün\n4;Das Gerät läuft nicht;Öffentliches\n"
)
FRENCH = "n;texte;classe\n1;La lumière de la cave s’est éteinte, ça gêne;Réparation\n"
SPANISH = "n;texto;clase\n1;El niño llamó mañana, ¿cuándo vendrá el técnico?;Avería\n"
POLISH = "n;tekst;klasa\n1;Proszę wymienić żarówkę, jest już słaba i mruga;Światło\n"
TURKISH = "n;metin;sınıf\n1;Şişli'deki ışık çalışmıyor, lütfen bakın, teşekkürler;Ağ\n"
RUSSIAN = "n;текст;класс\n1;Лампа на лестнице не горит, пришлите мастера;Свет\n"
JAPANESE = "n,text,class\n1,階段の電気がつきません。修理をお願いします。,照明\n"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (GERMAN, "cp1252"),
        (GERMAN.replace("–", "-"), "latin-1"),
        (GERMAN.replace("–", "-"), "cp850"),
        (GERMAN, "mac_roman"),
        ("n;text\n1;Maus müde\n", "cp1252"),  # one letter is all there is
        (FRENCH, "cp1252"),
        (SPANISH, "cp1252"),
        (POLISH, "cp1250"),
        (TURKISH, "cp1254"),
        (RUSSIAN, "cp1251"),
        (JAPANESE, "cp932"),
    ],
)
def test_what_is_not_utf8_is_read_as_what_it_says(tmp_path: Path, text: str, written: str) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(text.encode(written))
    encoding = encoding_of(file)
    assert encoding is not None
    assert file.read_bytes().decode(encoding) == text
    assert len(list(read_rows(file, encoding))) == text.count("\n") - 1
    with pytest.raises(BadFile, match=r"is not UTF-8 text: .* qcrd init finds out what it is"):
        list(read_rows(file))


@pytest.mark.parametrize("written", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_needs_no_guess_and_stays_what_it_is(tmp_path: Path, written: str) -> None:
    file = tmp_path / "a.csv.gz"
    file.write_bytes(gzip.compress(GERMAN.encode(written)))
    assert encoding_of(file) is None
    # saved anew since its definition was written
    assert [row["Amt"] for row in read_rows(file, "cp1252")] == ["Öffentliches", "Grün", "Grün", "Öffentliches"]


def test_a_file_in_two_encodings_is_refused_with_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(GERMAN.encode() + "5;Bäume;Grün\n".encode("cp1252"))
    with pytest.raises(BadFile, match="is UTF-8 in line 2 and not in line 6: mend or remove"):
        encoding_of(file)


def test_what_is_in_no_encoding_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"n;text\n1;\x81\x8d\n")
    with pytest.raises(BadFile, match="is neither UTF-8 nor cp1252 text"):
        list(read_rows(file, "cp1252"))
