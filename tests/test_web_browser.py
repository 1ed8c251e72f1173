"""The page in a real browser: open, paint, fill, compare, re-roll, undo, save, and what goes wrong on the way."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from serving import ROOT, png, server, unzipped, wait_for

from manyfill.images import open_picture

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
WAIT = 150_000  # milliseconds: as long as it takes where others use the machine too
SHOTS = os.environ.get("MANYFILL_SHOTS")  # a folder to leave screenshots in
PHOTO = np.kron(np.random.default_rng(1).integers(40, 220, (8, 12, 3)), np.ones((16, 16, 1))).astype(np.uint8)
EXPECTED_ERRORS = ("Failed to load resource",)  # what the browser itself says of an answer that is an error


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
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
def page(request: pytest.FixtureRequest, browser: "playwright.Browser", address: str) -> Iterator["playwright.Page"]:
    yield from visited(browser, address, request.param)


@pytest.fixture
def desk(browser: "playwright.Browser", address: str) -> Iterator["playwright.Page"]:
    yield from visited(browser, address, "desktop")


def visited(browser: "playwright.Browser", address: str, size: str, **more: object) -> Iterator["playwright.Page"]:
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


def open_picture_in(page: "playwright.Page", content: bytes = png(PHOTO), name: str = "photo.png") -> None:
    page.set_input_files("#picture-file", {"name": name, "mimeType": "image/png", "buffer": content})
    page.locator("#hud").wait_for()


def drag(page: "playwright.Page", *points: tuple[float, float], button: str = "left") -> None:
    """Over the stage, in shares of it."""
    box = page.locator("#surface").bounding_box()
    assert box
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down(button=button)
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up(button=button)


def fill(page: "playwright.Page", n: int | None = None) -> None:
    if n is not None:
        page.locator("#n").evaluate("(input, n) => (input.value = n)", n)
    page.locator("#fill").click()
    drawn(page)


def drawn(page: "playwright.Page") -> None:
    page.locator("#status", has_text=re.compile(r"fills? in [\d.]+ s")).wait_for()


def saved(page: "playwright.Page", act: Callable[[], None]) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        act()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def save(page: "playwright.Page", what: str) -> tuple[str, bytes]:
    page.locator("#save-button").click()
    return saved(page, page.locator(f"[data-save={what}]").click)


def shot(page: "playwright.Page", name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def mask_of(page: "playwright.Page") -> np.ndarray:
    return open_picture(save(page, "mask")[1]).pixels[..., 0] > 127


def selected(page: "playwright.Page") -> str:
    return page.locator('.tile[aria-selected="true"]').get_attribute("title") or ""


# ------------------------------------------------------------------------------------------------------ the main way


def test_paint_fill_look_and_go_on(page: "playwright.Page") -> None:
    open_picture_in(page)
    assert page.locator("#fill").is_disabled()
    drag(page, (0.4, 0.45), (0.6, 0.5))
    fill(page, 3)
    assert page.locator(".tile").count() == 6 and selected(page) == "Fill 1"
    shown = page.locator("#picture").screenshot()
    hold = page.locator("#compare")
    hold.hover()
    page.mouse.down()
    playwright.expect(page.locator("#seen-name")).to_have_text("Original")
    assert page.locator("#picture").screenshot() != shown
    page.mouse.up()
    playwright.expect(page.locator("#seen-name")).to_have_text("Fill 1")
    page.locator(".tile", has_text="Uncertainty").click()
    playwright.expect(page.locator("#legend")).to_be_visible()
    page.locator(".tile", has_text="Fill 3").click()
    page.locator("#go-on").click()
    playwright.expect(page.locator("#surface")).to_have_attribute(
        "aria-label", "photo-fill-3.png, 192 by 128 pixels. Paint what is missing."
    )
    assert page.locator("#fill").is_disabled()  # the new picture has no hole
    assert page.locator(".past").count() == 3


def test_what_is_saved_is_what_the_command_line_writes(desk: "playwright.Page", tmp_path: Path) -> None:
    open_picture_in(desk)
    drag(desk, (0.4, 0.45), (0.6, 0.5))
    fill(desk, 2)
    zipped = unzipped(save(desk, "all")[1])
    (tmp_path / "photo.png").write_bytes(png(PHOTO))
    (tmp_path / "mask.png").write_bytes(save(desk, "mask")[1])
    python = [os.sys.executable, "-m", "manyfill", "fill"]  # type: ignore[attr-defined]
    command = [*python, "photo.png", "--mask", "mask.png", "-n", "2", "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, check=True, env=environment, capture_output=True)
    for file in (tmp_path / "out").iterdir():
        assert zipped[file.name] == file.read_bytes(), file.name
    name, picture = save(desk, "picture")
    assert name == "photo-fill-00.png" and picture == zipped["fill-00.png"]
    record = json.loads(save(desk, "record")[1])
    assert record["steps"] == [{"command": "fill", "n": 2, "seed": 0, "temperature": 1.0}]


def test_levels_are_kept_or_drawn_anew(page: "playwright.Page") -> None:
    open_picture_in(page)
    drag(page, (0.35, 0.4), (0.65, 0.55))
    fill(page, 2)
    phone = page.locator("#drawer-toggle").is_visible()
    for keep, steps in (("fine", 2), ("coarse", 3)):
        if phone:
            page.locator("#drawer-toggle").click()
        page.locator(f"[data-locks={keep}]").click()
        with page.expect_response("**/reroll") as waiting:
            page.locator("#reroll").click()
        assert waiting.value.status == 200
        drawn(page)
        assert page.locator(".past").count() == steps + 1
        if phone:
            playwright.expect(page.locator("#drawer")).to_be_hidden()


# ---------------------------------------------------------------------------------------------------- the mask


def test_tools_draw_what_they_say(desk: "playwright.Page") -> None:
    open_picture_in(desk)
    desk.keyboard.press("r")
    drag(desk, (0.4, 0.4), (0.6, 0.6))
    rectangle = mask_of(desk)
    rows, columns = np.flatnonzero(rectangle.any(1)), np.flatnonzero(rectangle.any(0))
    assert rectangle[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    desk.keyboard.press("e")
    drag(desk, (0.45, 0.5), (0.55, 0.5))
    erased = mask_of(desk)
    assert 0 < erased.sum() < rectangle.sum() and not (erased & ~rectangle).any()
    desk.keyboard.press("Control+z")
    assert np.array_equal(mask_of(desk), rectangle)
    desk.keyboard.press("Control+Shift+z")
    assert np.array_equal(mask_of(desk), erased)
    desk.keyboard.press("i")
    assert np.array_equal(mask_of(desk), ~erased)
    desk.keyboard.press("Delete")
    assert desk.locator("[data-act=clear]").is_disabled()
    desk.keyboard.press("l")
    drag(desk, (0.4, 0.4), (0.6, 0.4), (0.5, 0.6))
    lasso = mask_of(desk)
    assert 0.3 < lasso.sum() / rectangle.sum() < 0.7
    desk.keyboard.press("Control+z")
    desk.keyboard.press("Control+z")
    assert np.array_equal(mask_of(desk), ~erased)


def test_a_mask_comes_back_as_it_was_saved_pixel_for_pixel_at_full_size(desk: "playwright.Page") -> None:
    photo = np.random.default_rng(0).integers(0, 255, (600, 840, 3), dtype=np.uint8)
    mask = np.random.default_rng(1).random((600, 840)) < 0.3
    open_picture_in(desk, png(photo))
    sent = {"name": "mask.png", "mimeType": "image/png", "buffer": png(mask.astype(np.uint8) * 255)}
    desk.set_input_files("#mask-file", sent)
    playwright.expect(desk.locator("#fill")).to_be_enabled()
    assert np.array_equal(mask_of(desk), mask)
    fill(desk, 1)
    unzipped_mask = open_picture(unzipped(save(desk, "all")[1])["mask.png"]).pixels[..., 0] > 127
    assert np.array_equal(unzipped_mask, mask)


def test_the_transparent_part_of_a_picture_is_its_mask(desk: "playwright.Page") -> None:
    alpha = np.full(PHOTO.shape[:2], 255, np.uint8)
    alpha[30:60, 40:90] = 0
    open_picture_in(desk, png(np.dstack([PHOTO, alpha])))
    assert np.array_equal(mask_of(desk), alpha == 0)


def test_the_pen_works_by_keys_alone(desk: "playwright.Page") -> None:
    open_picture_in(desk)
    desk.locator("#surface").focus()
    desk.keyboard.press("Enter")
    for key in ("ArrowRight",) * 6 + ("ArrowDown",) * 4:
        desk.keyboard.press(key)
    desk.keyboard.press("Enter")
    assert 100 < mask_of(desk).sum() < PHOTO.shape[0] * PHOTO.shape[1] / 2
    desk.keyboard.press("Control+Enter")
    drawn(desk)
    desk.locator('.tile[aria-selected="true"]').focus()
    desk.keyboard.press("ArrowRight")
    assert selected(desk) == "Fill 2"


def test_zoom_and_pan_leave_the_mask_where_it_is(desk: "playwright.Page") -> None:
    open_picture_in(desk)
    drag(desk, (0.45, 0.5), (0.55, 0.5))
    before, zoom = mask_of(desk), desk.locator("#zoom").inner_text()
    box = desk.locator("#surface").bounding_box()
    assert box
    desk.mouse.move(box["x"] + 200, box["y"] + 200)
    desk.mouse.wheel(0, -400)
    playwright.expect(desk.locator("#zoom")).not_to_have_text(zoom)
    desk.keyboard.down(" ")
    drag(desk, (0.5, 0.5), (0.3, 0.4))
    desk.keyboard.up(" ")
    assert np.array_equal(mask_of(desk), before)
    desk.keyboard.press("0")
    playwright.expect(desk.locator("#zoom")).to_have_text(zoom)


def test_two_fingers_move_the_view_and_leave_the_mask_as_it_is(browser: "playwright.Browser", address: str) -> None:
    pages = visited(browser, address, "phone")
    page = next(pages)
    open_picture_in(page)
    drag(page, (0.45, 0.5), (0.55, 0.5))
    before, zoom = mask_of(page), page.locator("#zoom").inner_text()
    send = page.context.new_cdp_session(page).send
    box = page.locator("#surface").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, *fingers in (
        ("touchStart", (x, y)),
        ("touchMove", (x - 20, y - 20)),  # one finger paints, until there is another
        ("touchStart", (x - 20, y - 20), (x + 20, y + 20)),
        ("touchMove", (x - 80, y - 80), (x + 80, y + 80)),
        ("touchEnd",),
    ):
        points = [{"x": across, "y": down, "id": number} for number, (across, down) in enumerate(fingers)]
        send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    playwright.expect(page.locator("#zoom")).not_to_have_text(zoom)
    assert np.array_equal(mask_of(page), before)
    next(pages, None)


def test_a_picture_begins_with_nothing_to_undo(desk: "playwright.Page") -> None:
    open_picture_in(desk)
    assert desk.locator("[data-act=undo]").is_disabled()


def test_one_goes_on_with_a_fill_before_the_others_have_come(desk: "playwright.Page") -> None:
    open_picture_in(desk)
    drag(desk, (0.4, 0.45), (0.6, 0.5))
    desk.locator("#n").evaluate("(input) => (input.value = 24)")
    desk.locator("#fill").click()
    desk.locator('.tile[title="Fill 1"]:not(:disabled)').click()
    desk.locator("#go-on").click()
    playwright.expect(desk.locator("#surface")).to_have_attribute("aria-label", re.compile("photo-fill-1.png"))
    assert desk.locator(".notice").count() == 0


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


def test_work_survives_a_restart_of_the_server(browser: "playwright.Browser", tmp_path: Path) -> None:
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
