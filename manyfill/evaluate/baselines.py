"""Other ways to fill a hole, to compare with: one guess each, no learning here.

Legend: H height, W width, C channels. Pixels are uint8 (H, W, C), masks bool (H, W) with True = missing; guesses are
float64 (H, W, C) in grey levels 0..255.
"""

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from manyfill.data.loader import with_channels
from manyfill.errors import ConfigError, PictureError
from manyfill.images import open_picture, save_png, to_tensor
from manyfill.masks import write_mask
from manyfill.models.expectation import Expectation

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`method(pixels, mask)`: the guess; hole pixels are blanked before it sees them."""

RADIUS = 3
COMMAND = "cmd:"


def _opencv(pixels: np.ndarray, mask: np.ndarray, method: str) -> np.ndarray:
    import cv2

    return cv2.inpaint(pixels, mask.astype(np.uint8), RADIUS, getattr(cv2, method)).reshape(pixels.shape)


def _telea(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Telea (2004), the fast marching method."""
    return _opencv(pixels, mask, "INPAINT_TELEA")


def _navier_stokes(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Bertalmio, Bertozzi & Sapiro (2001), fluid dynamics along the isophotes."""
    return _opencv(pixels, mask, "INPAINT_NS")


def _biharmonic(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Damelin & Hoang (2018), the biharmonic equation with the known pixels as its boundary."""
    from skimage.restoration import inpaint_biharmonic

    return np.clip(inpaint_biharmonic(pixels / 255.0, mask, channel_axis=-1), 0, 1) * 255


def _mean_colour(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.broadcast_to(pixels[~mask].mean(0), pixels.shape)


def _nearest(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The nearest known pixel's colour."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(mask, return_distances=False, return_indices=True)
    return pixels[rows, columns]


def _gaussian(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What a Gaussian with the spectrum of photographs in general expects: where an untaught model starts from."""
    x, m = to_tensor(np.ascontiguousarray(pixels))[None], torch.from_numpy(mask)[None, None].float()
    expected = Expectation(x.shape[1], x.shape[2])(x, m, torch.zeros_like(x), x.new_zeros(1))
    return (expected[0].permute(1, 2, 0).double().numpy() + 1) * 127.5


FAMILIES: dict[str, dict[str, Method]] = {
    "opencv": {"telea": _telea, "navier-stokes": _navier_stokes},
    "biharmonic": {"biharmonic": _biharmonic},
    "mean": {"mean colour": _mean_colour},
    "nearest": {"nearest pixel": _nearest},
    "gaussian": {"gaussian": _gaussian},
}


def methods(asked: Sequence[str]) -> dict[str, Method]:
    """Methods by name for what was asked: comma-separated families, or `cmd:` and a command; ConfigError."""
    found: dict[str, Method] = {}
    for item in asked:
        if item.startswith(COMMAND):
            ((name, method),) = _command(item).items()
            if name in found:
                raise ConfigError(f"--baselines {item}: another is called {name}; name it as 'cmd:NAME=PROGRAM ...'")
            found[name] = method
            continue
        for family in filter(None, item.split(",")):
            if family not in FAMILIES:
                valid = ", ".join(FAMILIES)
                raise ConfigError(f"--baselines {family}: no such method; choose from {valid}, or give 'cmd:...'")
            found |= FAMILIES[family]
    return found


def inpaint(method: Method, pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The method's guess in the hole, known pixels as given. Where nothing is known, the middle grey."""
    if mask.all():
        return np.full(pixels.shape, 127.5)
    # Blanked here, once, so that no library's handling of the hole can leak the truth into its guess.
    blanked = np.where(mask[..., None], np.uint8(0), pixels)
    return np.where(mask[..., None], method(blanked, mask), pixels).astype(np.float64)


def _command(item: str) -> dict[str, Method]:
    """A program of the user's, run for every picture with {image}, {mask} and {out} replaced by PNG files.

    It goes by the name before an equals sign, "cmd:lama=python fill.py ...", or by the program's own.
    """
    named = re.match(r"cmd:([\w-]+)=", item)
    try:
        words = shlex.split(item[named.end() :] if named else item.removeprefix(COMMAND))
    except ValueError as error:
        raise ConfigError(f"--baselines {item}: is no command ({error}); mend its quotes") from None
    missing = [name for name in ("{image}", "{mask}", "{out}") if not any(name in word for word in words)]
    if missing:
        raise ConfigError(f"--baselines {item}: lacks {', '.join(missing)}; name where each file goes")

    def method(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder) / f"{name}.png") for name in ("image", "mask", "out")}
            save_png(Path(files["image"]), pixels)
            write_mask(Path(files["mask"]), mask)
            return _answer(item, [_filled_in(word, files) for word in words], Path(files["out"]), pixels.shape)

    return {named[1] if named else Path(words[0]).name: method}


def _filled_in(word: str, files: dict[str, str]) -> str:
    for name, file in files.items():
        word = word.replace(f"{{{name}}}", file)
    return word


def _answer(item: str, command: list[str], out: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise ConfigError(f"--baselines {item}: cannot be run ({error.strerror}); check the command") from None
    if done.returncode or not out.is_file():
        last = (done.stderr.strip().splitlines() or ["it wrote no picture to {out}"])[-1]
        raise ConfigError(f"--baselines {item}: failed with exit code {done.returncode} ({last}); try it by hand")
    try:
        pixels = open_picture(out).pixels
    except PictureError as error:
        raise ConfigError(f"--baselines {item}: its answer cannot be read ({error}); it must write a PNG") from None
    if pixels.shape[:2] != shape[:2]:
        height, width = pixels.shape[:2]
        raise ConfigError(
            f"--baselines {item}: its answer is {width}x{height} for a {shape[1]}x{shape[0]} picture; keep the size"
        )
    return with_channels(pixels, shape[2])
