"""The command line: what it writes, and one line with exit code 2 for whatever a user can mend."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import manyfill
from manyfill import Filler, demo
from manyfill.checkpoint import load_model, save_model
from manyfill.cli import main
from manyfill.demo import Case
from manyfill.images import open_picture, save_png
from manyfill.masks import write_mask
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE

ROOT = Path(manyfill.__file__).parent.parent
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
MASK = np.zeros((40, 50), bool)
MASK[10:25, 20:40] = True


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_model(directory, ConditionalHVAE(PRESETS["tiny32"]), "# A tiny card\n", {"bits_per_dim": 7.25})
    return directory


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with photo.png and mask.png."""
    monkeypatch.chdir(tmp_path)
    save_png(Path("photo.png"), PIXELS)
    write_mask(Path("mask.png"), MASK)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which the command line refuses these arguments."""
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and "Traceback" not in shown.err
    return shown.err


# -------------------------------------------------------------------------------------------------------- fill


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


# --------------------------------------------------------------------------------------------------- bad input


def truncated(path: Path) -> None:
    path.write_bytes(Path("photo.png").read_bytes()[:1500])


def animated(path: Path) -> None:
    frames = [Image.fromarray(np.roll(PIXELS, i * 7, 1)) for i in range(3)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


BAD_PICTURES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "no such file"),
    "empty": (lambda path: path.touch(), "empty"),
    "truncated": (truncated, "truncated"),
    "no picture": (lambda path: path.write_text("hello"), "not a picture"),
    "a folder": (lambda path: path.mkdir(), "folder"),
    "animated": (animated, "animated"),
    "another size": (lambda path: save_png(path, PIXELS[:20]), "50x20"),
}


@pytest.mark.parametrize("what", ["photo", "mask", "truth"])
@pytest.mark.parametrize("case", BAD_PICTURES)
def test_bad_pictures_are_refused_by_name(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str], case: str, what: str
) -> None:
    make, words = BAD_PICTURES[case]
    make(Path("bad.file"))
    names = {"photo": "photo.png", "mask": "mask.png", "truth": "photo.png", what: "bad.file"}
    common = ["--mask", names["mask"], "--truth", names["truth"], "--model", str(model)]
    message = refused(capsys, "fill", names["photo"], *common)
    assert words in message
    # Of a photo of another size than its mask, the mask is named.
    assert ("mask.png" if (case, what) == ("another size", "photo") else "bad.file") in message
    assert not (here / "photo-fills").exists() and not (here / "bad-fills").exists()


def test_bad_flags_are_refused_by_name(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill = ["fill", "photo.png", "--mask", "mask.png", "--model", str(model)]
    assert "--max-pixels" in refused(capsys, *fill, "--max-pixels", "100")
    assert "-n 0" in refused(capsys, *fill, "-n", "0")
    assert "--format gif" in refused(capsys, *fill, "--format", "gif")
    assert "--quality 101" in refused(capsys, *fill, "--quality", "101")
    assert not Path("photo-fills").exists()
    assert "--temperature" in refused(capsys, *fill, "--temperature", "-1")
    assert "--seed" in refused(capsys, *fill, "--seed", "abc")
    assert "--msk" in refused(capsys, *fill, "--msk", "x")
    assert "PHOTO" in refused(capsys, "fill")
    assert "fil" in refused(capsys, "fil", "photo.png")
    assert "--mask" in refused(capsys, "fill", "photo.png", "--model", str(model))


def test_unwritable_output_is_refused_by_name(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("")
    fill = ["fill", "photo.png", "--mask", "mask.png", "-n", "1", "--model", str(model)]
    assert "taken" in refused(capsys, *fill, "--out", "taken")
    assert "taken/sub" in refused(capsys, *fill, "--out", "taken/sub")


def test_a_full_disk_leaves_no_half_file(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    message = refused(capsys, "fill", "photo.png", "--mask", "mask.png", "--model", str(model), "--out", "out")
    assert "No space left" in message
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize("command", ["fill", "info"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["gone", "altered"])
def test_a_damaged_model_is_refused(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str], command: str, file: str, damage: str
) -> None:
    shutil.copytree(model, "copy")
    path = Path("copy") / file
    if damage == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))
    rest = ["photo.png", "--mask", "mask.png", "--model", "copy"] if command == "fill" else ["copy"]
    assert "copy" in refused(capsys, command, *rest)
    assert not (here / "photo-fills").exists()


def test_a_missing_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "./nothing" in refused(capsys, "info", "./nothing")


# ------------------------------------------------------------------------------------------------ the other commands


def test_info_shows_make_size_card_and_figures(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model)]) == 0
    shown = capsys.readouterr().out
    for words in ("32x32", "MB", "A tiny card", "bits_per_dim", "7.25", "residual"):
        assert words in shown
    parameters = sum(p.numel() for p in ConditionalHVAE(PRESETS["tiny32"]).parameters())
    assert f"{parameters:,}" in shown


def test_info_is_brief_about_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    table, card = capsys.readouterr().out.split("---", 1)
    assert "masks, centre" in table and "{" not in table and not re.search(r"\d\.\d{7}", table)
    assert f"---{card}" == load_model("default").card + "\n"


def test_demo_leaves_a_page_whose_pictures_are_there(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = (Case("Coffee", "coffee", (0, 60, 400), 64, "centre"), Case("Man", "camera", (0, 0, 512), 40, "outpaint"))
    monkeypatch.setattr(demo, "CASES", cases)
    assert main(["demo", "--out", "page", "-n", "2", "--model", str(model)]) == 0
    assert "page/index.html" in capsys.readouterr().out
    page = Path("page/index.html").read_text()
    sources = [part.split('"')[0] for part in page.split('src="')[1:]]
    assert len(sources) == 2 * (4 + 2) and all((Path("page") / source).is_file() for source in sources)
    assert "bits/dim" in page and "http" not in page


def test_every_photograph_of_the_demo_comes_with_scikit_image() -> None:
    for case in demo.CASES:
        assert demo._photograph(case).shape[:2] == (case.size, case.size)


def test_the_demo_without_scikit_image_names_the_extra(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert "manyfill[demo]" in refused(capsys, "demo", "--model", str(model))
    assert not (here / "demo").exists()


def test_train_refuses_a_typo_and_an_absent_folder(capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "photos", "--out", "run", "--preset", "tiny32", "--steps", "1"]
    message = refused(capsys, *train, "--set", "train.lerning_rate=1")
    assert "lerning_rate" in message and "valid keys" in message
    assert "photos" in refused(capsys, *train)
    assert not Path("run/model").exists()


def test_a_trained_folder_fills() -> None:
    Path("photos").mkdir()
    for i in range(4):
        save_png(Path(f"photos/{i}.png"), np.roll(PIXELS, 9 * i, 1))
    train = ["train", "photos", "--val", "photos", "--out", "run", "--preset", "tiny32", "--steps", "2"]
    assert main([*train, "--set", "train.batch_size=2", "--set", "train.workers=0"]) == 0
    assert main(["fill", "photo.png", "--mask", "mask.png", "-n", "1", "--model", "run/model"]) == 0
    assert np.array_equal(open_picture("photo-fills/fill-00.png").pixels[~MASK], PIXELS[~MASK])


def test_ctrl_c_exits_with_130(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Filler, "__call__", interrupted)
    assert main(["fill", "photo.png", "--mask", "mask.png", "--model", str(model)]) == 130


# ------------------------------------------------------------------------------------------------ as a process


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_a_process_ends_with_2_and_one_line() -> None:
    done = python("-m", "manyfill", "fill", "nothing.png", "--model", "./nowhere")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["fill", "--help"], ["train", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    heavy = {"torch", "numpy", "PIL", "pydantic", "matplotlib", "safetensors", "skimage"}
    program = f"""
import sys
from manyfill.cli import main
code = main({arguments!r})
print("LOADED", sorted({heavy!r} & set(sys.modules)), code)
"""
    done = python("-c", program)
    assert done.stdout.rstrip().endswith("LOADED [] 0"), done.stdout + done.stderr
    shown = done.stdout
    assert manyfill.__version__ in shown if arguments == ["--version"] else "Usage: manyfill" in shown
