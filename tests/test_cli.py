"""`manyfill fill`: what it writes, in which format, with which notes."""

import json
from pathlib import Path

import numpy as np
import pytest
from commandline import MASK, PIXELS
from PIL import Image

from manyfill import Filler
from manyfill.cli import main
from manyfill.images import open_picture, save_png
from manyfill.masks import write_mask

pytestmark = pytest.mark.usefixtures("here")


def test_fill_writes_fills_beside_the_caller(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill", "photo.png", "--mask", "mask.png", "-n", "3", "--model", str(model)]) == 0
    folder = here / "photo-fills"
    names = {"fill-00.png", "fill-01.png", "fill-02.png", "mean.png", "q05.png", "q50.png", "q95.png"}
    names |= {"std.png", "sheet.png"}
    assert {file.name for file in folder.iterdir()} == names
    for name in names - {"std.png", "sheet.png"}:
        assert np.array_equal(open_picture(folder / name).pixels[~MASK], PIXELS[~MASK])
    shown = capsys.readouterr()
    assert "photo-fills/sheet.png" in shown.out and "bound" not in shown.out and not shown.err


def test_json_is_the_whole_record(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["fill", "photo.png", "--mask", "mask.png", "-n", "2", "--model", str(model), "--json", "--seed", "7"]
    assert main([*common, "--out", "out", "--truth", "photo.png", "--temperature", "0.5"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert json.loads(Path("out/fill.json").read_text()) == record
    assert record["model"] == str(model) and record["seed"] == 7 and len({tuple(keys) for keys in record["seeds"]}) == 2
    assert record["temperature"] == 0.5 and record["size"] == {"height": 40, "width": 50}
    assert record["hole_pixels"] == MASK.sum()
    assert record["bound"]["nats"] < 0 < record["bound"]["bits_per_dim"]
    assert record["timings"]["total"] >= record["timings"]["draw"] > 0
    assert record["quantiles"] == {"q05": "1 of 2", "q50": "1 of 2", "q95": "2 of 2"}
    assert len(record["files"]) == 9 and all(Path(file).is_file() for file in record["files"])
    assert main([*common, "--out", "other"]) == 0
    assert json.loads(capsys.readouterr().out)["bound"] is None


def test_the_same_command_writes_the_same_bytes_as_the_library(model: Path) -> None:
    for out in ("a", "b"):
        assert main(["fill", "photo.png", "--mask", "mask.png", "-n", "2", "--model", str(model), "--out", out]) == 0
    for file in sorted(Path("a").iterdir()):
        assert file.read_bytes() == (Path("b") / file.name).read_bytes()
    from_python = Filler.from_pretrained(model)(PIXELS, MASK, n=2).images[1]
    assert np.array_equal(open_picture("a/fill-01.png").pixels, from_python)


def test_fills_of_before_are_told_of(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill = ["fill", "photo.png", "--mask", "mask.png", "--model", str(model), "-n"]
    assert main([*fill, "3"]) == 0 and main([*fill, "3"]) == 0
    assert "of before" not in capsys.readouterr().out
    assert main([*fill, "1", "--json"]) == 0
    told = "photo-fills holds fills of before too: fill-01.png and 1 more"
    assert told in json.loads(capsys.readouterr().out)["notes"] and Path("photo-fills/fill-02.png").exists()


def test_an_empty_mask_is_a_note(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mask(Path("black.png"), np.zeros_like(MASK))
    assert main(["fill", "photo.png", "--mask", "black.png", "-n", "2", "--model", str(model)]) == 0
    assert "note: the mask is empty" in capsys.readouterr().out
    assert np.array_equal(open_picture("photo-fills/fill-01.png").pixels, PIXELS)


def test_a_transparent_picture_needs_no_mask(model: Path) -> None:
    save_png(Path("cut.png"), np.dstack([PIXELS, np.where(MASK, 0, 255).astype(np.uint8)]))
    assert main(["fill", "cut.png", "-n", "1", "--model", str(model)]) == 0
    filled = open_picture("cut-fills/fill-00.png")
    assert (filled.alpha == 255).all() and np.array_equal(filled.pixels[~MASK], PIXELS[~MASK])


@pytest.mark.parametrize(
    ("name", "image", "note"),
    [
        ("deep.png", Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "uint16"),
        ("print.tif", Image.fromarray(PIXELS).convert("CMYK"), "CMYK"),
        ("few.png", Image.fromarray(PIXELS).convert("P"), "palette"),
    ],
)
def test_converted_pictures_are_filled_with_a_note(
    model: Path, capsys: pytest.CaptureFixture[str], name: str, image: Image.Image, note: str
) -> None:
    image.save(name)
    assert main(["fill", name, "--mask", "mask.png", "-n", "1", "--model", str(model), "--out", "out"]) == 0
    assert f"note: {note}" in capsys.readouterr().out
    before, after = (open_picture(path).original for path in (name, Path("out/fill-00").with_suffix(Path(name).suffix)))
    assert after.mode == before.mode and after.values.dtype == before.values.dtype
    assert np.array_equal(after.values[~MASK], before.values[~MASK])


def test_files_come_back_in_their_own_format_or_another(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(PIXELS).save("photo.jpg", quality=70)
    fill = ["fill", "photo.jpg", "--mask", "mask.png", "-n", "2", "--model", str(model)]
    assert main(fill) == 0
    shown = capsys.readouterr().out
    assert "note: JPEG is lossy" in shown and "note: of 2 fills q05, q50 and q95 are values 1, 1 and 2" in shown
    pictures = ("fill-00", "fill-01", "mean", "q05", "q50", "q95")
    names = {f"{name}.jpg" for name in pictures} | {"std.png", "sheet.png"}
    assert {file.name for file in Path("photo-fills").iterdir()} == names
    assert main([*fill, "--format", "png", "--out", "png"]) == 0
    assert "lossy" not in capsys.readouterr().out
    read = open_picture("photo.jpg").pixels
    assert all(np.array_equal(open_picture(f"png/{name}.png").pixels[~MASK], read[~MASK]) for name in pictures)
    sizes = []
    for quality in ("20", "95"):
        assert main([*fill, "--quality", quality, "--out", quality]) == 0
        sizes.append(Path(quality, "fill-00.jpg").stat().st_size)
    assert sizes[0] < sizes[1] / 2


def test_measurements_keep_their_unit(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = (PIXELS[..., 0] / 7 + 300).astype(np.float32)
    values[MASK] = np.nan
    np.save("kelvin.npy", values)
    assert main(["fill", "kelvin.npy", "-n", "2", "--model", str(model), "--out", "out"]) == 0
    assert "float32 values" in capsys.readouterr().out
    filled = np.load("out/fill-01.npy")
    assert filled.dtype == np.float32 and np.array_equal(filled[~MASK], values[~MASK])
    assert filled[MASK].min() >= 300 and filled[MASK].max() <= 337
    assert np.load("out/std.npy").shape == MASK.shape


def test_ctrl_c_exits_with_130(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Filler, "__call__", interrupted)
    assert main(["fill", "photo.png", "--mask", "mask.png", "--model", str(model)]) == 130
