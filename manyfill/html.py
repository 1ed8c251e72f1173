"""The one look of every page that is written: a document, pictures in it, tables."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from PIL import Image

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c22; --paper: #fbfaf8; --quiet: #6a6a75; --rim: #dcdad5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e6e1; --paper: #17171b; --quiet: #9a98a3; --rim: #35353d; } }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1, h2, h3 { margin: 0; line-height: 1.2; }
section { margin-top: 2.5rem; }
p, figcaption, caption { margin: .25rem 0 .75rem; color: var(--quiet); text-align: left; }
a { color: inherit; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .75rem; }
.tiles img { aspect-ratio: 1; image-rendering: pixelated; }
figure { margin: 0 0 1rem; }
img { display: block; width: 100%; border: 1px solid var(--rim); box-sizing: border-box; }
figcaption { font-size: .85rem; }
.wide { overflow-x: auto; }
.plot { background: #fff; max-width: 62rem; }
.plot svg { width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--rim); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
small { color: var(--quiet); }
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">{refresh}
<title>{title} - manyfill</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def page(title: str, body: str, refresh: float | None = None) -> str:
    """A whole document; `body` is HTML, the title plain text. It loads itself anew every `refresh` seconds."""
    again = "" if refresh is None else f'\n<meta http-equiv="refresh" content="{refresh:.0f}">'
    return PAGE.format(title=escape(title), style=STYLE, body=body, refresh=again)


def picture(source: str, alternative: str, caption: str) -> str:
    """A figure of the picture at `source`; both texts plain."""
    image = f'<img src="{source}" alt="{escape(alternative)}" loading="lazy">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def inlined(pixels: np.ndarray) -> str:
    """A picture uint8 (H, W, 3) as a data URL, so that a page needs no file beside it."""
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table; cells are HTML, the caption plain text."""
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    top = "".join(f"<th>{cell}</th>" for cell in head)
    words = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{words}<tr>{top}</tr>{"".join(lines)}</table></div>'
