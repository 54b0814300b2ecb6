"""Tokenised examples on the disk, read back one by one: a training set's tokens need not fit into memory.

The file holds int32 numbers, one record an example, and has no name: it is gone with its process, however that ends.
Where records begin is in memory, 8 bytes an example. A record is read with one system call; what is read often stays
in the kernel's cache, which is not the process's memory.

    record: rows of integers, then float64 numbers    [rows, numbers, length of each row, the rows, the numbers]
"""

import os
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np

Example = TypeVar("Example")


class Record(NamedTuple):
    """What is stored of an example.

    Attributes:
        rows: lists of integers of up to 32 bits.
        numbers: floats; they come back bit for bit.
    """

    rows: list[Sequence[int]]
    numbers: list[float]


class ExampleFile(Sequence[Example], Generic[Example]):
    """A growing sequence of examples.

    Args:
        folder: where the file lies; created if missing.
        pack, unpack: make a record of an example, and the example of the record.
    """

    def __init__(self, folder: Path, pack: Callable[[Example], Record], unpack: Callable[[Record], Example]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as the sequence
        self._pack, self._unpack = pack, unpack
        self._ends = array("q", [0])

    def append(self, example: Example) -> None:
        """Adds an example at the end."""
        rows, numbers = self._pack(example)
        integers = np.fromiter(
            (one for part in ((len(rows), len(numbers)), map(len, rows), *rows) for one in part), np.int32
        )
        self._file.write(integers.tobytes())
        self._file.write(np.asarray(numbers, np.float64).tobytes())
        self._ends.append(self._ends[-1] + integers.nbytes + 8 * len(numbers))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place = range(len(self))[place]  # IndexError, and places from the end
        self._file.flush()
        start, end = self._ends[place], self._ends[place + 1]
        data = os.pread(self._file.fileno(), end - start, start)
        count, floats = (int(one) for one in np.frombuffer(data, np.int32, 2))
        numbers = np.frombuffer(data[len(data) - 8 * floats :], np.float64).tolist()
        values = np.frombuffer(data, np.int32, (len(data) - 8 * floats) // 4).tolist()
        lengths, at = values[2 : 2 + count], 2 + count
        rows: list[Sequence[int]] = []
        for length in lengths:
            rows.append(values[at : at + length])
            at += length
        return self._unpack(Record(rows, numbers))

    def close(self) -> None:
        """Removes the file."""
        self._file.close()

    def __enter__(self) -> "ExampleFile[Example]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
