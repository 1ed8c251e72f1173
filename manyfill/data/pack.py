"""Packing pictures into WebDataset tar shards, each a function of the source and its number alone.

Shard k holds what can be used of the pictures k * per_shard onwards, so shards do not depend on one another: a run
that was killed goes on behind the last shard noted in `shards.jsonl`, and ends with the same bytes. That manifest
says in its first line what was asked, and then in a line for each shard what is in it and what was left out.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from manyfill.data.batch import Skipped
from manyfill.data.index import shard_index
from manyfill.data.pictures import PictureFiles
from manyfill.data.strings import printable
from manyfill.errors import ConfigError, DataError, OutputError, PictureError
from manyfill.files import locked, make_folder, refusal, save_text, sweep, writing
from manyfill.images import DEFAULT_MAX_PIXELS, Picture, resize

MANIFEST, REPORT = "shards.jsonl", "skipped.tsv"
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
QUALITY = 95
LINE = {"file", "bytes", "pictures", "skipped"}  # what the manifest says of a shard


@dataclass(frozen=True)
class Packing:
    """How to pack: `per_shard` pictures to a shard; larger ones shrink until their shorter side is `size`, if given."""

    size: int | None = None
    per_shard: int = 1000
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        for flag, value in (("size", self.size), ("per-shard", self.per_shard), ("max-pixels", self.max_pixels)):
            if value is not None and value < 1:
                raise ConfigError(f"--{flag} {value}: must be 1 or more")


@dataclass(frozen=True)
class Packed:
    """What came of it: shards, the pictures in them, and those left out."""

    shards: int
    pictures: int
    skipped: list[Skipped]


class Packer:
    """From a source to shards in `out`; use `run`. `strict` makes a picture that cannot be used an error."""

    def __init__(self, source: PictureFiles, out: Path, packing: Packing, workers: int, strict: bool = False):
        if workers < 1:
            raise ConfigError(f"--workers {workers}: must be 1 or more")
        self.source, self.out, self.packing = source, out, packing
        self.workers, self.strict = workers, strict
        self.shards = -(-len(source) // packing.per_shard)

    def run(self, tick: Callable[[int], object] = lambda pictures: None) -> Packed:
        """Pack what is not packed yet, telling `tick` how many pictures are done with; the manifest is the record.

        DataError if no picture can be used, PictureError for the first if strict, OutputError where `out` cannot be
        written or holds something else.
        """
        asked = self._asked()
        make_folder(self.out)
        with locked(self.out):
            done = self._resume(asked)
            sweep(self.out)
            tick(min(len(done) * self.packing.per_shard, len(self.source)))
            with ThreadPoolExecutor(self.workers) as pool:
                try:
                    for number in range(len(done), self.shards):
                        done.append(self._pack(number, pool, tick))
                        self._note(done[-1])
                finally:
                    pool.shutdown(cancel_futures=True)
            return self._finish(done)

    def _asked(self) -> dict[str, Any]:
        names = hashlib.blake2b(digest_size=16)
        for index in range(len(self.source)):
            names.update(f"{self.source.name(index)}\n".encode())
        return {"pictures": len(self.source), "names": names.hexdigest(), **asdict(self.packing)}

    def _resume(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """The manifest's lines of finished shards; OutputError if `out` holds anything but a part of these shards."""
        manifest = self.out / MANIFEST
        if not manifest.exists():
            if any(self.out.glob("*.tar")):
                raise OutputError(f"{self.out}: holds shards of another origin; choose another OUT")
            save_text(manifest, json.dumps(asked) + "\n")
            return []
        held, *lines = _whole_lines(manifest) or [{}]
        if held != asked:
            changed = ", ".join(key for key in asked if held.get(key) != asked[key])
            raise OutputError(f"{self.out}: holds shards of other pictures or settings ({changed}); choose another OUT")
        for line in lines:
            if line.keys() != LINE:
                raise OutputError(f"{manifest}: is damaged; choose another OUT")
            shard = self.out / line["file"]
            if not shard.is_file() or shard.stat().st_size != line["bytes"]:
                raise OutputError(f"{shard}: is gone or altered; put it back, or start in another OUT")
        save_text(manifest, "".join(json.dumps(line) + "\n" for line in (held, *lines)))  # without a torn line
        return lines

    def _pack(self, number: int, pool: ThreadPoolExecutor, tick: Callable[[int], object]) -> dict[str, Any]:
        """Write a shard, then its index; returns its line for the manifest."""
        path, first = self.out / f"shard-{number:06d}.tar", number * self.packing.per_shard
        positions = range(first, min(first + self.packing.per_shard, len(self.source)))
        kept, skipped = 0, list[Skipped]()
        with writing(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for position, ready in zip(positions, pool.map(self._prepare, positions), strict=True):
                if isinstance(ready, Skipped):
                    skipped.append(ready)
                else:
                    kept += 1
                    for suffix, content in ready.items():
                        _add(tar, f"{position:09d}{suffix}", content)
                tick(1)
        shard_index(path)
        return {"file": path.name, "bytes": path.stat().st_size, "pictures": kept, "skipped": skipped}

    def _prepare(self, position: int) -> dict[str, bytes] | Skipped:
        """A picture's files by suffix, or why it has none."""
        try:
            picture = self.source.picture(position, self.packing.max_pixels)
            kind, content = packed_picture(self._stored(position), picture, self.packing.size)
            captions = self.source.captions(position)
        except PictureError as error:
            if self.strict:
                raise
            return Skipped(self.source.name(position), str(error))
        text = {".txt": "".join(f"{caption}\n" for caption in captions).encode()} if captions else {}
        return {kind: content, **text}

    def _stored(self, position: int) -> bytes:
        file = self.source.file(position)
        try:
            return file if isinstance(file, bytes) else file.read_bytes()
        except OSError as error:
            raise PictureError(f"{self.source.name(position)}: cannot be read ({error.strerror})") from None

    def _note(self, line: dict[str, Any]) -> None:
        try:
            with (self.out / MANIFEST).open("a") as manifest:
                manifest.write(json.dumps(line) + "\n")
                manifest.flush()
                os.fsync(manifest.fileno())
        except OSError as error:
            path = self.out / MANIFEST
            raise OutputError(f"{path}: cannot be written ({refusal(error, path)}); free space") from None

    def _finish(self, done: list[dict[str, Any]]) -> Packed:
        skipped = [Skipped(*row) for line in done for row in line["skipped"]]
        if skipped:
            save_skipped(self.out / REPORT, skipped)
        if skipped and self.strict:  # of an earlier run that was not
            raise PictureError(skipped[0].reason)
        pictures = sum(line["pictures"] for line in done)
        if not pictures:
            raise DataError(f"none of the {len(skipped):,} pictures can be used, the last because {skipped[-1].reason}")
        return Packed(len(done), pictures, skipped)


def packed_picture(stored: bytes, picture: Picture, size: int | None) -> tuple[str, bytes]:
    """Suffix and bytes of a picture in a shard: as stored where it is a JPEG or PNG that need not shrink, else anew.

    What was a JPEG stays one, at high quality; everything else becomes a PNG, without loss.
    """
    height, width, _ = picture.pixels.shape
    jpeg = stored.startswith(JPEG)
    if size is None or min(height, width) <= size:
        if jpeg or stored.startswith(PNG):
            return ".jpg" if jpeg else ".png", stored
        pixels = picture.pixels
    else:
        scale = size / min(height, width)
        pixels = resize(picture.pixels, round(height * scale), round(width * scale))
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    encoded = io.BytesIO()
    if jpeg:
        image.save(encoded, "JPEG", quality=QUALITY, subsampling=0)
    else:
        image.save(encoded, "PNG")
    return ".jpg" if jpeg else ".png", encoded.getvalue()


def save_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """Write name and reason of each, separated by a tab; OutputError."""
    save_text(path, "".join(f"{name}\t{' '.join(printable(reason).split())}\n" for name, reason in skipped))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # A TarInfo is of no time and no owner, so the same pictures give the same bytes.
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _whole_lines(manifest: Path) -> list[dict[str, Any]]:
    """The lines that were written to their end."""
    try:
        lines = manifest.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines if isinstance(json.loads(line), dict)]
    except (OSError, ValueError) as error:
        raise OutputError(f"{manifest}: cannot be read ({error}); choose another OUT") from None
