"""The page in a real browser: what goes wrong on the way, and whether everybody can use it."""

import shutil
import subprocess
from collections.abc import Callable

import numpy as np
import pytest
from browsing import SIZES, drag, fill, mask_of, open_picture_in, save, shot, visited
from serving import png, server, unzipped, wait_for

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api")

# ------------------------------------------------------------------------------------------------- what goes wrong


def test_a_file_that_is_no_picture_is_told_and_nothing_is_lost(desk: "playwright.Page") -> None:
    open_picture_in(desk)
    drag(desk, (0.4, 0.45), (0.6, 0.5))
    before = mask_of(desk)
    desk.set_input_files("#picture-file", {"name": "notes.png", "mimeType": "image/png", "buffer": b"text"})
    playwright.expect(desk.locator(".notice.bad")).to_contain_text(
        "notes.png: not a picture that this browser can show"
    )
    small = {"name": "small.png", "mimeType": "image/png", "buffer": png(np.zeros((9, 9), np.uint8))}
    desk.set_input_files("#mask-file", small)
    playwright.expect(desk.locator(".notice.bad")).to_contain_text("the mask is 9 x 9 but the picture is 192 x 128")
    assert np.array_equal(mask_of(desk), before)


def test_fills_can_be_cancelled(desk: "playwright.Page") -> None:
    open_picture_in(desk)
    drag(desk, (0.4, 0.45), (0.6, 0.5))
    desk.route("**/fill", lambda route: None)  # never answered
    desk.locator("#fill").click()
    desk.locator("#cancel").click()
    playwright.expect(desk.locator("#status")).to_have_text("Cancelled.")
    playwright.expect(desk.locator("#fill")).to_be_visible()
    assert desk.locator(".notice").count() == 0
    desk.unroute("**/fill")
    fill(desk, 1)


def test_a_busy_server_is_asked_again(desk: "playwright.Page") -> None:
    open_picture_in(desk)
    drag(desk, (0.4, 0.45), (0.6, 0.5))
    answers = iter([{"status": 429, "headers": {"Retry-After": "1"}, "json": {"detail": "the server is busy"}}])

    def busy_once(route: "playwright.Route") -> None:
        answer = next(answers, None)
        route.fulfill(**answer) if answer else route.continue_()

    desk.route("**/fill", busy_once)
    fill(desk, 1)
    assert next(answers, None) is None


def test_work_survives_a_restart_of_the_server(browser: "playwright.Browser") -> None:
    with server("default") as (address, _):
        port = address.rsplit(":", 1)[1]
        pages = visited(browser, address, "desktop")
        page = next(pages)
        open_picture_in(page)
        drag(page, (0.4, 0.45), (0.6, 0.5))
        fill(page, 2)
        mask = mask_of(page)
        first = save(page, "all")[1]
    page.locator("#seed").fill("1")
    page.locator("#fill").click()
    playwright.expect(page.locator(".notice.bad")).to_contain_text("The server does not answer")
    assert np.array_equal(mask_of(page), mask)
    with server("default", "--port", port) as (address, _):
        wait_for(address)
        page.locator(".notice button", has_text="Retry").click()
        page.locator("#status", has_text="2 fills in").wait_for()
        page.locator(".past", has_text="2 fills").last.click()  # those drawn by the server that is gone
        again = save(page, "all")[1]
        drawn = {name: content for name, content in unzipped(first).items() if name.endswith(".png")}
        assert {name: content for name, content in unzipped(again).items() if name.endswith(".png")} == drawn
        next(pages, None)


def test_the_token_is_asked_for_once(browser: "playwright.Browser") -> None:
    with server("default", MANYFILL_TOKEN="open sesame") as (address, _):
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.locator("#token-value").fill("open sesame")
        page.locator("#token button").click()
        playwright.expect(page.locator("#model")).to_contain_text("levels")
        page.reload()
        playwright.expect(page.locator("#model")).to_contain_text("levels")
        playwright.expect(page.locator("#token")).to_be_hidden()
        other = browser.new_context().new_page()
        other.goto(f"{address}/#token=open%20sesame")
        playwright.expect(other.locator("#model")).to_contain_text("levels")
        assert "token" not in other.url
        context.close()


# ------------------------------------------------------------------------------------- for everybody, and quickly


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checker's source, from npm."""
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("axe-core comes through npm, which is not here")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run([npm, "install", "--silent", "--prefix", str(folder), "axe-core@4"], capture_output=True)
    if done.returncode:
        pytest.skip("axe-core could not be had from npm")
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_no_fault(browser: "playwright.Browser", address: str, axe: str, size: str, scheme: str) -> None:
    pages = visited(browser, address, size, color_scheme=scheme, bypass_csp=True)
    page = next(pages)
    page.evaluate(axe)
    steps: list[tuple[str, Callable[[], object]]] = [
        ("empty", lambda: page.locator("#shelf .example").nth(5).wait_for()),
        ("painted", lambda: (open_picture_in(page), drag(page, (0.4, 0.45), (0.6, 0.5)))),
        ("filled", lambda: fill(page, 3)),
        ("uncertain", lambda: page.locator(".tile", has_text="Uncertainty").click()),
        ("saving", lambda: page.locator("#save-button").click()),
    ]
    for name, act in steps:
        act()
        page.wait_for_timeout(200)
        found = page.evaluate("axe.run()")
        faults = [(fault["id"], [node["html"][:120] for node in fault["nodes"]]) for fault in found["violations"]]
        assert faults == [], name
        shot(page, f"{size}-{scheme}-{name}")
    next(pages, None)


def test_less_motion_where_it_is_asked_for(browser: "playwright.Browser", address: str) -> None:
    pages = visited(browser, address, "desktop", reduced_motion="reduce")
    page = next(pages)
    durations = page.evaluate("() => getComputedStyle(document.querySelector('.primary')).transitionDuration")
    assert set(durations.split(", ")) == {"0s"}
    next(pages, None)
