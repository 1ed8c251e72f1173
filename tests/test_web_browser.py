"""The page in a real browser: open, paint, fill, compare, re-roll, undo, save."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browsing import PHOTO, drag, drawn, fill, mask_of, open_picture_in, save, selected, visited
from captions import tiny
from serving import ROOT, png, server, unzipped

from manyfill.checkpoint import save_model
from manyfill.images import open_picture

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api")

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
    python = [sys.executable, "-m", "manyfill", "fill"]
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


def test_a_reroll_goes_on_with_what_its_fill_was_told(browser: "playwright.Browser", tmp_path: Path) -> None:
    save_model(tmp_path / "reads", tiny(), "# card", {})
    with server(tmp_path / "reads") as (address, _):
        pages = visited(browser, address, "desktop")
        page = next(pages)
        open_picture_in(page)
        drag(page, (0.4, 0.45), (0.6, 0.5))
        page.fill("#caption", "a red car")
        page.fill("#guidance", "2.5")
        fill(page, 2)
        page.fill("#caption", "the sea")
        page.locator("#reroll").click()
        playwright.expect(page.locator(".past")).to_have_count(3)
        record = json.loads(save(page, "record")[1])
        assert (record["caption"], record["guidance"]) == ("a red car", 2.5)
        assert [step["command"] for step in record["steps"]] == ["fill", "reroll"]
        next(pages, None)


# ------------------------------------------------------------------------------------------------- ways to open

BRING = """([kind, name, type, bytes]) => {
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(bytes)], name, { type }));
  const dropped = new DragEvent("drop", { dataTransfer: files });
  document.dispatchEvent(kind === "drop" ? dropped : new ClipboardEvent("paste", { clipboardData: files }));
}"""


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(desk: "playwright.Page", way: str) -> None:
    desk.evaluate(BRING, [way, "notes.txt", "text/plain", list(b"text")])
    notices = desk.locator(".notice.bad", has_text="Drop a picture file: PNG, JPEG or WebP.")
    playwright.expect(notices).to_have_count(1 if way == "drop" else 0)
    desk.evaluate(BRING, [way, f"{way}.png", "image/png", list(png(PHOTO))])
    playwright.expect(desk.locator("#surface")).to_have_attribute("aria-label", re.compile(f"{way}.png, 192 by 128"))
    assert np.array_equal(open_picture(save(desk, "picture")[1]).pixels, PHOTO)


def test_examples_are_opened(page: "playwright.Page") -> None:
    page.locator("#shelf .example", has_text="Coffee").click()
    playwright.expect(page.locator("#surface")).to_have_attribute("aria-label", re.compile("coffee.png, 600 by 400"))
    page.locator("#examples-button").click()
    page.locator("#examples .example", has_text="Cat").click()
    playwright.expect(page.locator("#surface")).to_have_attribute("aria-label", re.compile("cat.png, 451 by 300"))


# ---------------------------------------------------------------------------------------------------- the mask


def test_the_brush_is_as_broad_as_slider_and_brackets_say(desk: "playwright.Page") -> None:
    open_picture_in(desk)

    def dabbed() -> int:
        drag(desk, (0.5, 0.5), (0.5, 0.5))
        area = int(mask_of(desk).sum())
        desk.keyboard.press("Delete")
        return area

    areas = [dabbed()]
    for key in ("]", "[", "["):
        for _ in range(3):
            desk.keyboard.press(key)
        areas.append(dabbed())
    desk.locator("#size").fill("100")
    areas.append(dabbed())
    first, broader, again, finer, broadest = areas
    assert 0 < finer < first == again < broader < broadest


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
