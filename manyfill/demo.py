"""A page of results: several of scikit-image's bundled photographs, holed in several ways and filled."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from manyfill import html
from manyfill.completions import Completions, hatched
from manyfill.errors import ManyfillError
from manyfill.files import make_folder, save_text
from manyfill.images import resize, save_png
from manyfill.masks import draw
from manyfill.pipeline import Filler
from manyfill.rng import numpy_generator


@dataclass(frozen=True)
class Case:
    """A square (top, left, side) of one of `skimage.data`'s photographs at `size` pixels, with a kind of hole."""

    title: str
    sample: str
    square: tuple[int, int, int]
    size: int
    kind: str

    @property
    def folder(self) -> str:
        return f"{self.sample}-{self.size}-{self.kind}"


ABOUT = """Model {model}, seed {seed}. Grey stripes are missing; the uncertainty map is bright where the fills differ
most. Bits/dim is the bound on the missing pixels at the model's size. Photographs: scikit-image's bundled samples."""

CASES = (
    Case("Coffee", "coffee", (0, 60, 400), 64, "centre"),
    Case("Rocket", "rocket", (0, 106, 427), 64, "centre"),
    Case("Cat", "cat", (0, 60, 300), 64, "half"),
    Case("Astronaut", "astronaut", (0, 0, 512), 64, "brush"),
    Case("Photographer, in grey", "camera", (0, 0, 512), 64, "outpaint"),
    Case("Deep field", "hubble_deep_field", (0, 64, 872), 64, "pixels"),
    Case("Portrait", "astronaut", (0, 96, 256), 128, "boxes"),
    Case("Launch pad", "rocket", (171, 0, 256), 128, "outpaint"),
    Case("Cat, larger", "cat", (0, 60, 300), 192, "scratches"),
    Case("Coffee, larger", "coffee", (0, 60, 400), 256, "brush"),
)


def build(out: Path, n: int, model: str, seed: int, report: Callable[[str], None]) -> Path:
    """Fill every case n times, write the pictures and `index.html` under `out`, and return the page's path.

    `report` is given a line for each case. Raises ManyfillError without scikit-image, and as `Filler` does.
    """
    filler = Filler.from_pretrained(model)
    sections = []
    for index, case in enumerate(CASES):
        truth = _photograph(case)
        mask = draw(case.kind, case.size, case.size, numpy_generator(seed, "demo", index))
        completions = filler(truth, mask, n, seed, truth=truth)
        folder = make_folder(out / case.folder)
        completions.save(folder)
        save_png(folder / "input.png", hatched(truth, mask))
        save_png(folder / "truth.png", truth)
        caption = _caption(case, completions)
        report(f"{case.title}: {caption}")
        sections.append(_section(case, caption, completions))
    page = out / "index.html"
    about = ABOUT.format(model=escape(filler.id), seed=seed)
    save_text(page, html.page("Many fills", f"<p>{about}</p>\n" + "\n".join(sections)))
    return page


def _photograph(case: Case) -> np.ndarray:
    """uint8 (size, size, C)."""
    try:
        from skimage import data
    except ImportError:
        raise ManyfillError("the demo's photographs come with scikit-image: pip install 'manyfill[demo]'") from None
    pixels = getattr(data, case.sample)()
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    top, left, side = case.square
    return resize(pixels[top : top + side, left : left + side], case.size, case.size)


def _caption(case: Case, completions: Completions) -> str:
    assert completions.bound is not None
    return (
        f"{case.size}x{case.size}, {case.kind} hole ({completions.mask.mean():.0%} missing), "
        f"{len(completions.images)} fills in {completions.timings.draw:.2f} s, "
        f"{completions.bound.bits_per_dim:.2f} bits/dim, std up to {completions.std.max():.0f} levels"
    )


def _section(case: Case, caption: str, completions: Completions) -> str:
    tiles = [("input", "input"), ("truth", "truth"), ("mean", "mean of the fills"), ("std", "uncertainty")]
    tiles += [(f"fill-{i:02d}", f"fill {i}") for i in range(len(completions.images))]
    figures = "\n".join(
        html.picture(f"{case.folder}/{name}.png", f"{case.title}: {label}", label) for name, label in tiles
    )
    notes = "".join(f"<p>{escape(note)}</p>" for note in completions.notes)
    heading = f'<h2>{escape(case.title)}</h2>\n<p>{escape(caption)} (<a href="{case.folder}/sheet.png">sheet</a>)</p>'
    return f'<section>\n{heading}\n{notes}<div class="tiles">\n{figures}\n</div>\n</section>'
