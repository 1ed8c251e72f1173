"""What the tests in a real browser share: the browser, the page, and what a person does there."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from serving import png, server

from manyfill.images import open_picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
WAIT = 150_000  # milliseconds: as long as it takes where others use the machine too
SHOTS = os.environ.get("MANYFILL_SHOTS")  # a folder to leave screenshots in
PHOTO = np.kron(np.random.default_rng(1).integers(40, 220, (8, 12, 3)), np.ones((16, 16, 1))).astype(np.uint8)
EXPECTED_ERRORS = ("Failed to load resource",)  # what the browser itself says of an answer that is an error


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no chromium on this machine; name one in CHROMIUM")
    with playwright.sync_playwright() as p:
        playwright.expect.set_options(timeout=WAIT)
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server("default", log=tmp_path_factory.mktemp("log") / "server.txt") as (found, _):
        yield found


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, browser: "Browser", address: str) -> Iterator["Page"]:
    yield from visited(browser, address, request.param)


@pytest.fixture
def desk(browser: "Browser", address: str) -> Iterator["Page"]:
    yield from visited(browser, address, "desktop")


def visited(browser: "Browser", address: str, size: str, **more: object) -> Iterator["Page"]:
    """The page, freshly loaded; whatever it says on the console is an error."""
    said: list[str] = []
    context = browser.new_context(viewport=SIZES[size], has_touch=size == "phone", accept_downloads=True, **more)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    page.locator("#model", has_text="levels").wait_for(state="attached")
    yield page
    context.close()
    assert [text for text in said if not text.startswith(EXPECTED_ERRORS)] == []


def open_picture_in(page: "Page", content: bytes = png(PHOTO), name: str = "photo.png") -> None:
    page.set_input_files("#picture-file", {"name": name, "mimeType": "image/png", "buffer": content})
    page.locator("#hud").wait_for()


def drag(page: "Page", *points: tuple[float, float], button: str = "left") -> None:
    """Over the stage, in shares of it."""
    box = page.locator("#surface").bounding_box()
    assert box
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down(button=button)
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up(button=button)


def fill(page: "Page", n: int | None = None) -> None:
    if n is not None:
        page.locator("#n").evaluate("(input, n) => (input.value = n)", n)
    page.locator("#fill").click()
    drawn(page)


def drawn(page: "Page") -> None:
    page.locator("#status", has_text=re.compile(r"fills? in [\d.]+ s")).wait_for()


def saved(page: "Page", act: Callable[[], None]) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        act()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def save(page: "Page", what: str) -> tuple[str, bytes]:
    page.locator("#save-button").click()
    return saved(page, page.locator(f"[data-save={what}]").click)


def shot(page: "Page", name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def mask_of(page: "Page") -> np.ndarray:
    return open_picture(save(page, "mask")[1]).pixels[..., 0] > 127


def selected(page: "Page") -> str:
    return page.locator('.tile[aria-selected="true"]').get_attribute("title") or ""
