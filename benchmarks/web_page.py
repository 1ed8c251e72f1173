"""How soon fills stand on the page, and how smoothly one paints, zooms and types on a photo of 12 megapixels.

    python benchmarks/web_page.py [--rounds 5] [--json FILE]

Chromium (CHROMIUM, or the one on the PATH) opens `manyfill serve`. Fills are timed in the page from the click to the
first fill and to the end of 8 fills, each on a canvas; a frame is what lies between two of the browser's animation
frames. Where others use the machine too, processor seconds say more: those of the server for the fills, and for a frame
those of the page's own thread and of all of the browser's processes, which draw without a graphics card here.
"""

import argparse
import os
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from common import check_writable, run, write_json
from playwright.sync_api import Browser, Page, sync_playwright
from web_load import processor_seconds, serving

from manyfill.benchmark import machine
from manyfill.device import processors
from manyfill.errors import ConfigError
from manyfill.images import png_bytes, resize

SIDES = (64, 256, 512)  # of the photographs to fill
HOLE = 0.3  # of a photograph's side, a square
PATIENCE = 180_000  # milliseconds
WATCH = """() => {
  window.seconds = {};
  const status = document.querySelector("#status");
  const begin = () => {
    const began = performance.now();
    const note = () => {
      const [now, text] = [(performance.now() - began) / 1000, status.textContent];
      if (/^Drawn|in [\\d.]+ s$/.test(text)) window.seconds.first ??= now;
      if (/in [\\d.]+ s$/.test(text)) window.seconds.all = now;
    };
    new MutationObserver(note).observe(status, { childList: true });
  };
  document.querySelector("#fill").addEventListener("click", begin, { capture: true, once: true });
}"""
RECORD = """() => {
  const times = (window.frames_seen = []);
  let last = performance.now();
  const tick = (now) => { times.push(now - last); last = now; window.ticking = requestAnimationFrame(tick); };
  window.ticking = requestAnimationFrame(tick);
}"""
REPORT = "() => { cancelAnimationFrame(window.ticking); return window.frames_seen.slice(2); }"


def chromium() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        raise ConfigError("CHROMIUM: there is no chromium on the PATH; name one in this variable")
    return found


def opened(browser: Browser, address: str, photo: np.ndarray) -> Page:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator("#shelf .example").nth(5).wait_for()
    page.set_input_files("#picture-file", {"name": "photo.png", "mimeType": "image/png", "buffer": png_bytes(photo)})
    page.locator("#hud").wait_for()
    return page


def stroke(page: Page, *places: tuple[float, float]) -> None:
    """Over the stage, in shares of it."""
    box = page.locator("#surface").bounding_box()
    assert box
    spots = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot)
    page.mouse.up()


# ------------------------------------------------------------------------------------------------------- the fills


def fills(browser: Browser, address: str, pid: int, side: int) -> dict[str, float]:
    """Seconds from the click until the first fill and all of 8 are on the page, and the server's processor seconds."""
    page = opened(browser, address, resize(skimage.data.astronaut(), side, side))
    hole = np.zeros((side, side, 1), np.uint8)
    hole[side // 3 :, side // 3 :][: int(HOLE * side), : int(HOLE * side)] = 255
    page.set_input_files("#mask-file", {"name": "mask.png", "mimeType": "image/png", "buffer": png_bytes(hole)})
    page.locator("#fill:not(:disabled)").wait_for()
    page.evaluate(WATCH)
    before, used = processor_seconds(pid), {}
    page.locator("#fill").click()
    for what in ("first", "all"):
        page.wait_for_function(f"() => window.seconds.{what}")
        used[f"{what}_processor"] = processor_seconds(pid) - before
    found: dict[str, float] = page.evaluate("() => window.seconds")
    page.close()
    return found | used


# ------------------------------------------------------------------------------------------------------ the frames


def paint(page: Page) -> None:
    stroke(page, *[(0.2 + 0.004 * i, 0.5 + 0.2 * float(np.sin(i / 8))) for i in range(150)])


def zoom(page: Page) -> None:
    page.mouse.move(600, 400)
    for i in range(80):
        page.mouse.wheel(0, -60 if i % 40 < 20 else 60)
        page.wait_for_timeout(16)


def type_in(page: Page) -> None:
    page.locator("#seed").press_sequentially("12345678901234", delay=50)


def family(pid: int) -> list[int]:
    """A process and all that it began. Linux only."""
    found = [pid]
    for parent in found:
        for thread in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def browsers() -> list[int]:
    return [pid for pid in family(os.getpid()) if "chrom" in Path(f"/proc/{pid}/comm").read_text()]


def frames(page: Page, act: Callable[[Page], None]) -> dict[str, float]:
    """Milliseconds between frames while one acts, and of processors for a frame."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def used() -> tuple[float, float]:
        metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
        return metrics["TaskDuration"], sum(map(processor_seconds, browsers()))

    before = used()
    page.evaluate(RECORD)
    act(page)
    times = page.evaluate(REPORT)
    own, whole = (1e3 * (b - a) / len(times) for a, b in zip(before, used(), strict=True))
    median, late = statistics.median(times), float(np.quantile(times, 0.95))
    return {"count": len(times), "median": median, "p95": late, "page_processor": own, "browser_processor": whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    check_writable(asked.json)
    record: dict[str, Any] = {"machine": machine() | {"processors": processors()}, "fills": {}, "frames_ms": {}}
    path = chromium()
    with serving() as (address, pid), sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for side in SIDES:
            rounds = [fills(browser, address, pid, side) for _ in range(asked.rounds)]
            found = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
            record["fills"][f"{side}x{side}"] = found
            print(f"{side}x{side}: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.items()))
        whole = skimage.data.astronaut()
        page = opened(browser, address, resize(np.ascontiguousarray(whole[:384]), 3000, 4000))
        page.wait_for_timeout(1000)
        for act in (paint, zoom, type_in):
            found = record["frames_ms"][act.__name__] = frames(page, act)
            print(
                f"{act.__name__}: {found['count']} frames, median {found['median']:.1f} ms, p95 {found['p95']:.1f} ms; "
                f"processor ms: {found['page_processor']:.1f} of the page, {found['browser_processor']:.1f} in all"
            )
        browser.close()
    write_json(asked.json, record)


if __name__ == "__main__":
    run(main)
