"""How smooth the page is on a photo of 12 megapixels: times between frames while one paints, zooms and types."""

import statistics
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from skimage import data
from test_web_browser import address, browser, drag, open_picture_in, visited  # noqa: F401  fixtures

from manyfill.images import png_bytes, resize

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api")
FRAME = 1000 / 60  # milliseconds

RECORD = """() => {
  const times = (window.frames_seen = []);
  window.work_done = [];
  let last = performance.now();
  const tick = (now) => { times.push(now - last); last = now; window.ticking = requestAnimationFrame(tick); };
  window.ticking = requestAnimationFrame(tick);
}"""
REPORT = "() => { cancelAnimationFrame(window.ticking); return window.frames_seen.slice(2); }"


@pytest.fixture(scope="module")
def photo() -> bytes:
    whole = data.astronaut()
    return png_bytes(resize(np.ascontiguousarray(whole[:384]), 3000, 4000))


@pytest.fixture
def page(browser: "playwright.Browser", address: str, photo: bytes) -> Iterator["playwright.Page"]:  # noqa: F811
    pages = visited(browser, address, "desktop")
    page = next(pages)
    open_picture_in(page, photo)
    page.wait_for_timeout(1000)
    yield page
    next(pages, None)


def paint(page: "playwright.Page") -> None:
    drag(page, *[(0.2 + 0.006 * i, 0.5 + 0.2 * np.sin(i / 8)) for i in range(100)])


def zoom(page: "playwright.Page") -> None:
    page.mouse.move(600, 400)
    for i in range(60):
        page.mouse.wheel(0, -60 if i % 40 < 20 else 60)
        page.wait_for_timeout(16)


def type_in(page: "playwright.Page") -> None:
    page.locator("#seed").press_sequentially("12345678901234", delay=30)


@pytest.mark.parametrize("act", [paint, zoom, type_in], ids=lambda act: act.__name__)
def test_frames_keep_their_time(page: "playwright.Page", act: Callable[["playwright.Page"], None]) -> None:
    if act is not paint:
        paint(page)
    page.evaluate(RECORD)
    act(page)
    times = page.evaluate(REPORT)
    typical, late = statistics.median(times), sorted(times)[int(0.95 * len(times))]
    print(f"{act.__name__}: {len(times)} frames, median {typical:.1f} ms, 95 % within {late:.1f} ms")
    assert typical < 1.1 * FRAME
