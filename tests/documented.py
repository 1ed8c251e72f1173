"""The blocks of code in the documentation, the commands in them, and stand-ins for what they take.

A block that cannot be executed here says so to every reader: its first line (the second of a script that begins with
#!) is `# not tested: REASON`.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import tifffile
from markdown_it import MarkdownIt
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
SERVE = re.compile(r"^manyfill serve(.*?)(#.*)?$", re.MULTILINE)
UNTESTED = re.compile(r"\A(?:#!.*\n)?# not tested: (.+)")

# How long work is made short. Nothing else of a block is changed, but for the port of the server.
SHORTER = {
    r"--minutes \d+": "--steps 2",
    r"--adapt 2m": "--adapt 2",
    r'"2m"': "2",
    r"manyfill evaluate ": "manyfill evaluate --samples 3 --bound-samples 2 --masks centre --limit 2 ",
    r"manyfill benchmark": "manyfill benchmark --rounds 1",
    r"--nproc-per-node 4": "--nproc-per-node 2",
    r"-n (16|20|40)\b": "-n 4",
    r"range\((20|40)\)": "range(4)",
    r"pip install ('[^']*'|\S+)": "true",  # what it installs is there already
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line it begins at, its language, and what it says."""

    page: str
    line: int
    language: str
    text: str

    @property
    def untested(self) -> str | None:
        """Why it is not executed; None where it is."""
        found = UNTESTED.match(self.text)
        return found and found.group(1).strip()

    @property
    def shortened(self) -> str:
        """The text as it is executed."""
        text = self.text
        for long, short in SHORTER.items():
            text = re.sub(long, short, text)
        return text


def blocks(page: Path) -> list[Block]:
    """All code of a page; an indented block has no language."""
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(name, token.map[0] + 1, token.info.strip(), token.content)
        for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
        if token.type in ("fence", "code_block") and token.map
    ]


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every manyfill command in a script, however it is started."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "manyfill" in words and "push" not in words[: words.index("manyfill")] and words[0] not in ("docker", "pip"):
            yield words[words.index("manyfill") + 1 :]


def furnish(folder: Path) -> None:
    """What the pages take for granted: a photo, masks, folders of pictures."""
    cat = Image.fromarray(skimage.data.chelsea()).crop((100, 20, 300, 220))  # room for squares to adapt to
    cat.save(folder / "photo.jpg", quality=95)
    cat.save(folder / "photo.png")
    cat.save(folder / "whole.png")
    hole = np.zeros((200, 200), bool)
    hole[90:102, 90:114] = True
    for name in ("mask.png", "other.png", "clouds.png"):
        Image.fromarray(hole).save(folder / name)
    for name in ("my-pictures", "photos", "masks", "scenes", "held-out"):
        (folder / name).mkdir()
    coffee = Image.fromarray(skimage.data.coffee())
    for i in range(6):
        small = coffee.crop((90 * i, 60 * i, 90 * i + 96, 60 * i + 96))
        small.save(folder / "my-pictures" / f"{i}.png")
        small.convert("L").save(folder / "scenes" / f"{i}.png")
    for i in range(2):
        coffee.crop((90 * i, 0, 90 * i + 96, 96)).save(folder / "photos" / f"{i}.jpg")
        Image.fromarray(hole[60:156, 60:156]).save(folder / "masks" / f"{i}.png")
    band = skimage.data.camera()[::2, ::2][:200, :200].astype(np.float32)
    tifffile.imwrite(folder / "band.tif", np.where(hole, np.float32(-9999), band))
