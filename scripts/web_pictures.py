"""Draw docs/images/web-*.png: the page in a browser, on scikit-image's photographs.

python scripts/web_pictures.py [http://127.0.0.1:7860]      # a running `manyfill serve`
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent.parent / "docs" / "images"
STROKES = (((0.36, 0.3), (0.44, 0.36), (0.5, 0.48)), ((0.6, 0.62), (0.5, 0.7), (0.42, 0.68)))


def paint(page: Page) -> None:
    """Strokes over the cat."""
    page.locator("#shelf .example", has_text="Cat").click()
    page.locator("#hud").wait_for()
    box = page.locator("#surface").bounding_box()
    assert box
    for stroke in STROKES:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=12)
        page.mouse.up()
    page.mouse.move(2, 2)


def save(page: Page, name: str) -> None:
    page.wait_for_timeout(400)
    # In all its colours: 256 of them would not do for photograph, mask and heat map together.
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(IMAGES / f"web-{name}.png", optimize=True)


def main(address: str = "http://127.0.0.1:7860") -> None:
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme, width, height in (("light", 1280, 800), ("dark", 390, 844)):
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(address)
            page.locator("#shelf .example").nth(5).wait_for()
            paint(page)
            page.locator("#fill").click()
            page.locator("#status", has_text="8 fills in").wait_for(timeout=300_000)
            # How long it took is a matter of the machine.
            page.locator("#status").evaluate("(status) => (status.textContent = '8 fills')")
            save(page, "fills" if scheme == "light" else "phone")
            if scheme == "light":
                page.locator(".tile", has_text="Uncertainty").click()
                save(page, "uncertainty")
        browser.close()


main(*sys.argv[1:])
