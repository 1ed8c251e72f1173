"""Filling many pictures: the same bytes as one by one, in any division, after any interruption."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import ROOT
from filling import NAMES, fill_many, pictures_below, refused, rows, statuses
from PIL import Image

import manyfill
from manyfill.bulk.fill import BulkFiller, ahead
from manyfill.bulk.pictures import folders
from manyfill.checkpoint import save_model
from manyfill.cli import main
from manyfill.completions import Completions
from manyfill.errors import ConfigError, DataError
from manyfill.images import save_png
from manyfill.masks import draw, write_mask
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE
from manyfill.rank import Rank
from manyfill.recipe import Fill
from manyfill.runtime import network

pytestmark = pytest.mark.usefixtures("gappy")


# ------------------------------------------------------------------------------------------------------- the same bytes


def test_every_picture_is_filled_as_fill_fills_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # One picture a batch is what `fill` does, on any processor.
    assert fill_many(model, "--seed", "3", "--sheets", "--quantiles", "--batch", "1") == 0
    assert "6 filled" in capsys.readouterr().out
    for name in NAMES:
        alone, mask = Path("alone") / name, Path("masks", name).with_suffix(".png")
        fill = ["fill", f"in/{name}", "--mask", str(mask), "-n", "2", "--seed", "3", "--model", str(model)]
        assert main([*fill, "--out", str(alone)]) == 0
        assert pictures_below(alone) == pictures_below(Path("out", name).with_suffix(""))
    record = json.loads(Path("out/sub/c/fill.json").read_text())
    assert record["picture"] == "sub/c.png" and record["status"] == "filled" and record["seed"] == 3
    names = {"fill-00.png", "fill-01.png", "mean.png", "q05.png", "q50.png", "q95.png", "std.png", "sheet.png"}
    assert set(record["files"]) == names
    assert Path("out/sub/d/fill-01.jpg").exists(), "written as it came"
    assert record["seconds"] > 0 and record["hole_pixels"] > 0 and rows()[3] == record


def test_latents_are_those_of_fill_and_can_be_rerolled(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warm = ["--temperature", "0.5,0.8,1", "--batch", "1"]
    assert fill_many(model, "--latents", *warm) == 0
    assert "temperature: [0.5, 0.8, 1.0] there, 1.0 here" in refused(capsys, model, "--latents", "--batch", "1")
    assert fill_many(model, "--latents", *warm, "--json") == 0 and '"reused": 6' in capsys.readouterr().out
    common = ["in/a.png", "--mask", "masks/a.png", "-n", "2", "--model", str(model), "--latents"]
    assert main(["fill", *common, "--temperature", "0.5,0.8,1", "--out", "alone"]) == 0
    for name in ("fill-00", "fill-01"):
        alone, many = (Fill.load(Path(out, f"{name}.safetensors")) for out in ("alone", "out/a"))
        assert many.recipe == alone.recipe and many.picture == alone.picture
        assert all(np.array_equal(a, b) for a, b in zip(many.latents, alone.latents, strict=True))
    source = ["--photo", "in/a.png", "--mask", "masks/a.png", "--model", str(model)]
    levels = f"1-{len(PRESETS['tiny32'].levels)}"
    kept = ["reroll", "out/a/fill-01.safetensors", "--keep-levels", levels, "-n", "1", "--out", "again", *source]
    assert main(kept) == 0
    assert Path("again/fill-00.png").read_bytes() == Path("out/a/fill-01.png").read_bytes()


def test_batches_change_a_grey_level_here_and_there_at_most(model: Path) -> None:
    assert fill_many(model, "--batch", "1", out="alone") == fill_many(model, "--batch", "64", out="together") == 0
    alone, together = pictures_below("alone"), pictures_below("together")
    assert alone.keys() == together.keys()
    for name in alone:
        if "std" not in name:
            a, b = (np.asarray(Image.open(Path(out, name))).astype(int) for out in ("alone", "together"))
            assert np.abs(a - b).max() <= 1 and (a != b).mean() < 1e-3


@pytest.mark.parametrize("precision", ["the processor's own", "float32"])
def test_ranks_give_what_one_process_gives(model: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    if precision == "float32":  # there the last bit of a sum depends on what shares a batch
        monkeypatch.setattr(network, "autocast", lambda _: nullcontext())
    assert fill_many(model, out="alone") == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert fill_many(model) == 0
    assert pictures_below("out") == pictures_below("alone")
    parts = [statuses(part=f"0000{rank}-of-00002") for rank in (0, 1)]
    assert sorted([*parts[0], *parts[1]]) == sorted(NAMES) and all(parts)
    assert not list(Path("out").rglob(".*"))


def test_another_division_replaces_the_reports(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert fill_many(model) == 0
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert fill_many(model) == 0
    assert [path.name for path in Path("out").glob("report-*")] == ["report-00000-of-00001.jsonl"]
    assert sum(row.get("reused", False) for row in rows()) == 2 and len(rows()) == 6


def test_shards_are_filled_as_folders_are(model: Path) -> None:
    Path("shards").mkdir()
    for folder, shard in (("in", "shards/x.tar"), ("masks", "masks.tar")):
        with tarfile.open(shard, "w") as tar:
            for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
                tar.add(file, file.relative_to(folder).as_posix())
    assert fill_many(model, out="plain") == fill_many(model, data="shards/x.tar", masks="masks.tar") == 0
    assert pictures_below("out") == pictures_below("plain")
    # Of several shards each has a folder, and so must have their masks.
    Path("all").mkdir()
    Path("masks").rename("all/x")
    assert fill_many(model, data="shards", masks="all", out="many") == 0
    assert pictures_below("many/x") == pictures_below("plain")


def test_the_pictures_of_a_list_are_filled_and_no_others(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.csv").write_text("sub/c.png,\na.png,a cat\ngone.png,a dog\n")
    assert fill_many(model, "--images", "in", "--batch", "1", data="list.csv") == 0
    assert statuses() == {"sub/c.png": "filled", "a.png": "filled", "gone.png": "skipped"}
    assert fill_many(model, "--batch", "1", out="all") == 0
    assert pictures_below("out").items() <= pictures_below("all").items()
    assert "--images in: goes with a captions .json or .csv" in refused(capsys, model, "--images", "in")


def test_transparent_pixels_and_one_mask_for_all(model: Path) -> None:
    rng = np.random.default_rng(0)
    Path("cut").mkdir()
    for i in range(3):
        hole = draw("boxes", 20, 20, rng)
        save_png(
            Path(f"cut/{i}.png"), np.dstack([rng.integers(0, 256, (20, 20, 3), dtype=np.uint8), ~hole * np.uint8(255)])
        )
    assert fill_many(model, data="cut", masks=None) == 0
    assert main(["fill", "cut/1.png", "-n", "2", "--model", str(model), "--out", "alone"]) == 0
    assert pictures_below("out/1")["fill-01.png"] == pictures_below("alone")["fill-01.png"]
    write_mask(Path("one.png"), np.eye(20, dtype=bool))
    assert fill_many(model, data="cut", masks="one.png", out="eye") == 0
    assert {row["hole_pixels"] for row in rows("eye")} == {20}


def test_every_picture_comes_back_in_its_own_format_or_in_one(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mixed").mkdir()
    values = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    hole = draw("boxes", 20, 20, np.random.default_rng(0))
    np.save("mixed/field.npy", values / 7)
    Image.fromarray(values).save("mixed/photo.jpg")
    Image.fromarray(values * np.uint16(200)).save("mixed/scan.tif")
    np.save("one.npy", hole)
    assert fill_many(model, data="mixed", masks="one.npy") == 0
    told = capsys.readouterr().out
    assert "note: JPEG is lossy" in told and "float64 values: the model sees 256 levels of them (1 picture)" in told
    found = {path.relative_to("out").as_posix() for path in Path("out").glob("*/fill-00.*")}
    assert found == {"field/fill-00.npy", "photo/fill-00.jpg", "scan/fill-00.tif"}
    assert np.array_equal(np.load("out/field/fill-00.npy")[~hole], (values / 7)[~hole])
    scan = np.asarray(Image.open("out/scan/fill-01.tif"))
    assert scan.dtype == np.uint16 and np.array_equal(scan[~hole], (values * np.uint16(200))[~hole])
    assert "format: None there, png here" in refused(capsys, model, "--format", "png", data="mixed", masks="one.npy")
    assert fill_many(model, "--format", "png", data="mixed", masks="one.npy", out="png") == 0
    assert {path.name for path in Path("png").glob("*/fill-00.*")} == {"fill-00.png"}


def test_soft_masks_are_told_once(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path("masks").rglob("*.png"):
        image = Image.open(path)
        image.resize((20, 15), Image.Resampling.BOX).resize(image.size, Image.Resampling.BILINEAR).save(path)
    assert fill_many(model, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["notes"]["the mask has soft edges: values over 127 count as missing"] >= 4


def test_transparent_pixels_and_those_that_are_no_number_need_no_mask(model: Path) -> None:
    Path("gaps").mkdir()
    field = np.arange(400.0).reshape(20, 20)
    field[3:9, 4:12] = np.nan
    np.save("gaps/field.npy", field)
    cut = np.dstack([np.full((20, 20, 3), 90, np.uint8), np.where(np.eye(20), 0, 255).astype(np.uint8)])
    save_png(Path("gaps/cut.png"), cut)
    save_png(Path("gaps/whole.png"), cut[..., :3])
    assert fill_many(model, data="gaps", masks=None) == 0
    assert statuses() == {"cut.png": "filled", "field.npy": "filled", "whole.png": "skipped"}
    assert "--masks" in rows()[2]["reason"]
    assert {row["picture"]: row.get("hole_pixels") for row in rows()[:2]} == {"cut.png": 20, "field.npy": 48}


def test_an_empty_mask_leaves_the_picture_unchanged(model: Path) -> None:
    write_mask(Path("masks/a.png"), np.zeros((30, 40), bool))
    assert fill_many(model) == 0
    assert statuses() == dict.fromkeys(NAMES, "filled") | {"a.png": "unchanged"}
    assert np.array_equal(Image.open("out/a/fill-01.png"), Image.open("in/a.png"))


# ------------------------------------------------------------------------------------------------------------- resuming


def test_what_is_done_is_not_done_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fill_many(model, "--json") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.png")}
    Path("out/b/fill-01.png").write_bytes(b"")  # as a power failure may leave it
    wanted = pictures_below("out/a") | {"b": Path("out/b/mean.png").read_bytes()}
    drawn: list[int] = []
    draw_all = manyfill.Filler.draw
    monkeypatch.setattr(manyfill.Filler, "draw", lambda *a: drawn.append(len(a[1])) or draw_all(*a))
    assert fill_many(model) == 0
    assert drawn == [2]  # the block of b and its neighbour, as it was
    after = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.png")}
    assert before.keys() == after.keys()
    assert {path.parent.name for path in before if before[path] != after[path]} == {"b"}
    assert pictures_below("out/a") | {"b": Path("out/b/mean.png").read_bytes()} == wanted
    assert [row["picture"] for row in rows() if not row.get("reused")] == ["b.png"]


def test_a_killed_run_goes_on_to_the_same_end(model: Path) -> None:
    assert fill_many(model, "--batch", "1", out="whole") == 0
    flags = ["in", "out", "--masks", "masks", "--model", str(model), "-n", "2", "--batch", "1", "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "manyfill", "fill-many", *flags], env=environment)
    while process.poll() is None and not list(Path("out").glob("*/fill.json")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for record in Path("out").rglob("fill.json"):  # a folder under its name is whole
        files = json.loads(record.read_text())["files"]
        assert files == {file.name: file.stat().st_size for file in record.parent.glob("*.png")}
    Path("out/.rank-00000-of-00001/half").mkdir()
    assert fill_many(model, "--batch", "1") == 0
    assert pictures_below("out") == pictures_below("whole")
    assert list(statuses()) == list(statuses("whole"))
    assert not list(Path("out").rglob(".*"))


def test_another_request_is_refused_saying_what_differs(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fill_many(model) == 0
    assert "n: 2 there, 3 here" in refused(capsys, model, "-n", "3")
    assert not list(Path("out").glob(".*"))
    assert "seed: 0 there, 1 here" in refused(capsys, model, "--seed", "1")
    assert "temperature" in refused(capsys, model, "--temperature", "0.5")
    assert "batch: 4 there, 2 here" in refused(capsys, model, "--batch", "2")
    assert "masks: one for each there, one for all here" in refused(capsys, model, masks="masks/a.png")
    torch.manual_seed(1)
    save_model(Path("other"), ConditionalHVAE(PRESETS["tiny32"]), "", {})
    assert "model" in refused(capsys, Path("other"))
    write_mask(Path("masks/b.png"), np.eye(33, 40, dtype=bool))
    assert "out/b: holds fills of another in/b.png or mask" in refused(capsys, model)


def test_new_pictures_may_join(model: Path) -> None:
    for folder in ("in", "masks"):
        Path(folder, "b.png").rename(f"{folder}-b.png")
    assert fill_many(model) == 0
    for folder in ("in", "masks"):
        Path(f"{folder}-b.png").rename(f"{folder}/b.png")
    assert fill_many(model) == 0
    assert sum(row.get("reused", False) for row in rows()) == 5 and len(rows()) == 6


# ---------------------------------------------------------------------------------------------------------------- parts


def test_each_picture_has_a_folder_of_its_own() -> None:
    assert folders(["a.png", "b/c.jpg"]) == ["a", "b/c"]
    assert folders(["a.png", "a.jpg", "b.png"]) == ["a.png", "a.jpg", "b"]
    assert folders(["a.png", "a/b.png"]) == ["a.png", "a/b"]  # the one's fills would lie among the other's
    with pytest.raises(DataError, match=r"a\.png"):
        folders(["a.png", "a.jpg", "a.png.bmp"])


def test_blocks_are_shared_out_whole() -> None:
    shares = [list(Rank(index, 3).share(range(8))) for index in range(3)]
    assert (
        sorted(block for share in shares for block in share) == list(range(8))
        and max(map(len, shares)) - min(map(len, shares)) <= 1
    )


def test_a_tar_cannot_reach_outside(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open("evil.tar", "w") as tar:
        tar.add("in/a.png", "../../evil.png")
    assert "evil.png: names a place outside" in refused(capsys, model, data="evil.tar")


@pytest.mark.parametrize("name", ["../masks/a.png", "sub/../../masks/a.png", "{here}/masks/a.png", ""])
def test_a_list_cannot_reach_outside(model: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    names = ["b.png", name.format(here=Path.cwd())]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    Path("in/list.json").write_text(json.dumps({"images": images, "annotations": []}))
    assert "names a place outside of in; rename it" in refused(capsys, model, data="in/list.json")


def test_a_folder_may_have_any_name(model: Path) -> None:
    Path("in").rename("i\n")
    assert fill_many(model, data="i\n") == 0 and len(rows()) == 6


def test_items_are_begun_ahead_of_their_use() -> None:
    begun: list[int] = []
    items = ahead((begun.append(i) or i for i in range(5)), 2)
    assert next(items) == 0 and begun == [0, 1, 2]
    assert list(items) == [1, 2, 3, 4]


@pytest.mark.parametrize("spare", [True, False])
def test_only_a_core_to_spare_lets_pictures_be_read_and_written_while_others_are_drawn(
    model: Path, monkeypatch: pytest.MonkeyPatch, spare: bool
) -> None:
    order: list[str] = []
    for kind, name in ((BulkFiller, "_read"), (manyfill.Filler, "draw"), (BulkFiller, "_finish")):
        act = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *a, act=act, name=name: order.append(name) or act(*a))
    monkeypatch.setattr(network, "leaves_a_core", lambda _: spare)
    assert fill_many(model, "--batch", "2", "--workers", "1") == 0
    in_turn = ["_read", "draw", "_finish"] * len(NAMES)
    assert sorted(order) == sorted(in_turn) and (order == in_turn) != spare


def test_an_error_ends_the_threads(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Completions, "files", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fill_many(model)


def test_ray_is_asked_for_by_name(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "pip install 'manyfill[ray]'" in refused(capsys, model, "--ray")
    with pytest.raises(ConfigError):
        Rank.of({"RANK": "0"})
    assert "ray" not in sys.modules and BulkFiller
