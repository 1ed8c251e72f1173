"""What the tests of bulk filling share: a folder with pictures and masks, the command, and what it left."""

import json
from pathlib import Path

import numpy as np
import pytest
from commandline import refusal
from PIL import Image

from manyfill.cli import main
from manyfill.masks import KINDS, draw, write_mask

NAMES = ("a.png", "b.png", "sub/c.png", "sub/d.jpg", "sub/deep/e.png", "f.png")


def make_pictures() -> None:
    for i, name in enumerate(NAMES):
        rng = np.random.default_rng(i)
        for folder in ("in", "masks"):
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (30 + 3 * i, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path("in", name))
        write_mask(Path("masks", name).with_suffix(".png"), draw(KINDS[i], 30 + 3 * i, 40, rng))


def fill_many(model: Path, *arguments: str, masks: str | None = "masks", data: str = "in", out: str = "out") -> int:
    flags = {"-n": "2", "--batch": "4", "--model": str(model)} | ({} if masks is None else {"--masks": masks})
    chosen = [word for flag in flags.items() if flag[0] not in arguments for word in flag]
    return main(["fill-many", data, out, *chosen, *arguments])


def refused(capsys: pytest.CaptureFixture[str], model: Path, *arguments: str, **places: str | None) -> str:
    """The one line with which these arguments are refused."""
    capsys.readouterr()
    assert fill_many(model, *arguments, **places) == 2  # type: ignore[arg-type]
    return refusal(capsys)


def pictures_below(folder: str | Path) -> dict[str, bytes]:
    """The content of every picture, by path."""
    found = (path for path in sorted(Path(folder).rglob("*.*")) if path.suffix in (".png", ".jpg"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def rows(out: str = "out", part: str = "00000-of-00001") -> list[dict]:
    return [json.loads(line) for line in Path(out, f"report-{part}.jsonl").read_text().splitlines()]


def statuses(out: str = "out", part: str = "00000-of-00001") -> dict[str, str]:
    return {row["picture"]: row["status"] for row in rows(out, part)}
