"""What the tests of data sets share: small pictures of real texture, and places to put them."""

import io
import resource
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data as samples_of_skimage


def patches(count: int, height: int = 24, width: int = 20) -> list[np.ndarray]:
    photo = samples_of_skimage.chelsea()  # textured everywhere, 300 x 451
    places = np.random.default_rng(0).integers(0, 300 - max(height, width), (count, 2))
    return [photo[y : y + height, x : x + width] for y, x in places]


def encoded(pixels: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    return encoded(pixels, "PNG")


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    return encoded(pixels, "JPEG", **options)


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(path: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can be written beyond so many bytes: as on a full disk, and for root too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
