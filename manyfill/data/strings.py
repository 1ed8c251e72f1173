"""A long row of short texts in two arrays: a million file names take their letters and 8 bytes each, no more."""

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class Strings(Sequence[str]):
    """Texts as one run of UTF-8 `letters` (uint8) and the place where each ends (int64); any file name fits."""

    def __init__(self, letters: np.ndarray, ends: np.ndarray):
        self.letters, self.ends = letters, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Strings":
        letters, ends = bytearray(), array("q")
        for text in texts:
            letters += text.encode("utf-8", "surrogateescape")
            ends.append(len(letters))
        return cls(np.frombuffer(bytes(letters), np.uint8), np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "list[str]": ...

    def __getitem__(self, index: int | slice) -> "str | list[str]":
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        first = 0 if index in (0, -len(self)) else self.ends[index - 1]
        return self.letters[first : self.ends[index]].tobytes().decode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """A name as it can be printed and written to a report: what is no UTF-8 in it, or breaks a line, as \\-escapes."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
