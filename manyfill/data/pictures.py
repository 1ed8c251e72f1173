"""What every kind of source of picture files shares: how a file becomes an example."""

from abc import ABC, abstractmethod
from pathlib import Path

from manyfill.data.batch import Example
from manyfill.images import DEFAULT_MAX_PIXELS, Picture, open_picture


class PictureFiles(ABC):
    """Picture files by number, each with its captions; decoding one that cannot be used raises PictureError."""

    @property
    @abstractmethod
    def root(self) -> Path:
        """The folder or shard that they lie in."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """Where a user finds the picture, fit to print."""

    @abstractmethod
    def file(self, index: int) -> Path | bytes:
        """The picture's file: its path, or its bytes where they lie within another file."""

    @abstractmethod
    def captions(self, index: int) -> list[str]: ...

    def picture(self, index: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
        """The decoded picture; PictureError."""
        return open_picture(self.file(index), name=self.name(index), max_pixels=max_pixels)

    def __getitem__(self, index: int) -> Example:
        picture = self.picture(index)
        return Example(picture.pixels, self.captions(index), picture.name)
