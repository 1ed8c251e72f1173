"""Exported models: graphs that agree with torch, fills without it, refusals."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import MASK, PIXELS, ROOT, refused
from exporting import CONFIGS, MICRO, SIZE, stored
from PIL import Image

import manyfill
from manyfill import Fill, Filler
from manyfill.checkpoint import load_model
from manyfill.cli import main
from manyfill.errors import ManyfillError, PictureError
from manyfill.export import export_model
from manyfill.images import open_picture
from manyfill.masks import draw
from manyfill.models.config import ModelConfig
from manyfill.runtime import Masked, Noise, Runtime, Tiles
from manyfill.runtime.exported import ENCODER, SAMPLER, Exported, is_exported, read_exported
from manyfill.runtime.graphs import Graphs
from manyfill.runtime.network import Network
from manyfill.runtime.open import open_runtime

pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: stored(config, folder / name) for name, config in CONFIGS.items()}


@pytest.fixture(scope="module")
def exports(models: dict[str, Path]) -> dict[str, Path]:
    """Each of the models exported by the command."""
    found = {name: model.with_name(f"{name}-onnx") for name, model in models.items()}
    for name, directory in found.items():
        assert main(["export", str(models[name]), "--onnx", str(directory)]) == 0
    return found


@pytest.fixture(scope="module")
def exported(exports: dict[str, Path]) -> Path:
    return exports["multiscale"]


# ------------------------------------------------------------------------------------------------------------ parity


def tiles(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    holes = [draw(kind, SIZE, SIZE, rng) for kind in ("centre", "half", "brush")[:count]]
    x = rng.uniform(-1, 1, (count, 3, SIZE, SIZE)).astype(np.float32)
    return x, np.stack(holes)[:, None].astype(np.float32)


def noise_of(config: ModelConfig, m: np.ndarray, given: int = 0) -> Noise:
    rng = np.random.default_rng(1)
    levels = [rng.standard_normal((len(m), z.latent, z.size, z.size)).astype(np.float32) for z in config.levels]
    return Noise(levels, given, rng.random((int(m.sum()), config.pixel_noise)).astype(np.float32))


def both(models: dict[str, Path], exports: dict[str, Path], name: str) -> tuple[Network, Graphs]:
    runtimes: list[Runtime] = [open_runtime(str(each[name]), device="cpu") for each in (models, exports)]
    assert isinstance(runtimes[0], Network) and isinstance(runtimes[1], Graphs)
    return runtimes[0], runtimes[1]


def assert_close(ours: Tiles, theirs: Tiles, most: float) -> None:
    for one, other in zip([ours.mean, *ours.latents], [theirs.mean, *theirs.latents], strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=0, atol=most)
    # Pixels are rounded to 256 values: where the last bit decides they are one apart.
    assert (np.abs(ours.x - theirs.x) > 1e-4).mean() < 0.01


@pytest.fixture
def single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    from manyfill.runtime import network

    monkeypatch.setattr(network, "autocast", lambda _: nullcontext())


@pytest.mark.usefixtures("single_precision")
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("count", "copies", "given", "guided"), [(1, 1, 0, False), (1, 5, 2, True), (3, 2, 1, True)])
def test_graphs_agree_with_torch_to_1e_4(
    models: dict[str, Path], exports: dict[str, Path], name: str, count: int, copies: int, given: int, guided: bool
) -> None:
    network, graphs = both(models, exports, name)
    x, m = tiles(count)
    guide = tiles(count, 7)[0] if guided else None
    noise = noise_of(network.config, m.repeat(copies, 0), given)
    theirs, ours = (each.draw(each.tell(Masked(x, m, guide)), copies, noise) for each in (network, graphs))
    assert_close(ours, theirs, 1e-4)
    known = (1 - m.repeat(copies, 0)).astype(bool).repeat(3, 1)
    assert np.array_equal(ours.x[known], x.repeat(copies, 0)[known])
    for level in range(given):
        hole = theirs.latents[level] != 0
        assert np.array_equal(ours.latents[level][hole], noise.levels[level][hole])


@pytest.mark.slow
@pytest.mark.usefixtures("single_precision")
def test_pixel_after_pixel(tmp_path: Path) -> None:
    """The other head that draws in stages: many more of them."""
    config = MICRO.model_copy(update={"canvas": False, "head": "pixelcnn"})
    export_model(str(stored(config, tmp_path / "model")), tmp_path / "exported")
    x, m = tiles(3)
    runtimes = [open_runtime(str(tmp_path / name), device="cpu") for name in ("model", "exported")]
    theirs, ours = (each.draw(each.tell(Masked(x, m)), 2, noise_of(config, m.repeat(2, 0))) for each in runtimes)
    assert_close(ours, theirs, 1e-4)


@pytest.mark.usefixtures("single_precision")
def test_a_picture_of_which_nothing_is_known(models: dict[str, Path], exports: dict[str, Path]) -> None:
    """Where the closed form divides by what is known: an optimiser that drops the 1e-12 in it makes this NaN."""
    network, graphs = both(models, exports, "multiscale")
    x, m = np.zeros((2, 3, SIZE, SIZE), np.float32), np.ones((2, 1, SIZE, SIZE), np.float32)
    theirs, ours = (each.draw(each.tell(Masked(x, m)), 1, noise_of(MICRO, m)) for each in (network, graphs))
    assert_close(ours, theirs, 1e-4)


@pytest.mark.usefixtures("single_precision")
def test_the_same_seed_draws_the_same_fills(models: dict[str, Path], exported: Path) -> None:
    theirs = Filler.from_pretrained(models["multiscale"], device="cpu")(PIXELS, MASK, n=3, seed=4, temperature=0.8)
    ours = Filler.from_pretrained(exported)(PIXELS, MASK, n=3, seed=4, temperature=0.8)
    for one, other in zip([*ours.images, ours.mean], [*theirs.images, theirs.mean], strict=True):
        gap = np.abs(one.astype(int) - other)
        assert (gap > 1).mean() < 0.01 and np.array_equal(one[~MASK], PIXELS[~MASK])
    for a, b in zip(ours.latents, theirs.latents, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3)
    assert ours.seeds == theirs.seeds


def stored_weights(exported: Exported) -> int:
    """Bytes that the weights of the network take in its two graphs."""
    import onnx

    graphs = [onnx.load_from_string(exported.graphs[name]).graph for name in (ENCODER, SAMPLER)]
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    return sum(tensor.ByteSize() for tensor in tensors if tensor.data_type != onnx.TensorProto.INT64)  # no places


FEWER = [("plain", "fp16", 0.6), ("plain", "int8", 0.9), ("multiscale", "fp16", 0.6), ("multiscale", "int8", 0.96)]
"""The model, the precision, and the share that is left of the weights' size: little of a tiny head is on integers."""


@pytest.mark.parametrize(("name", "precision", "size"), FEWER)
def test_fewer_bits_stay_near(exports: dict[str, Path], tmp_path: Path, name: str, precision: str, size: float) -> None:
    from manyfill.export.precision import VARIANTS

    whole = read_exported(exports[name])
    small = VARIANTS[precision](whole)  # type: ignore[index]
    small.save(tmp_path / precision)
    assert small.digest != whole.digest and small.export.precision == precision
    assert stored_weights(small) < size * stored_weights(whole)
    x, m = tiles(3)
    fine, coarse = Graphs(whole), open_runtime(str(tmp_path / precision))
    a, b = (each.draw(each.tell(Masked(x, m)), 1, noise_of(MICRO, m)) for each in (fine, coarse))
    gap = np.abs(a.mean - b.mean)[m.repeat(3, 1) > 0]
    assert 0 < gap.mean() < {"fp16": 0.02, "int8": 0.3}[precision]


# ------------------------------------------------------------------------------------------------------------- fills


def test_company_and_repetition_change_nothing(exported: Path) -> None:
    filler = Filler.from_pretrained(exported)
    many, again = filler(PIXELS, MASK, n=5), filler(PIXELS, MASK, n=5)
    assert all(np.array_equal(a, b) for a, b in zip(many.images, again.images, strict=True))
    gap = np.abs(filler(PIXELS, MASK, n=1).images[0].astype(int) - many.images[0])
    assert (gap > 1).mean() < 1e-3


def test_levels_are_kept_redrawn_and_blended(exported: Path, models: dict[str, Path], here: Path) -> None:
    assert main(["fill", "photo.png", "--mask", "mask.png", "-n", "2", "--model", str(exported), "--latents"]) == 0
    kept = here / "photo-fills/fill-01.safetensors"
    common = ["--model", str(exported), "-n", "1", "--out"]
    assert main(["reroll", str(kept), "--keep-levels", "all", *common, "same"]) == 0
    assert main(["reroll", str(kept), "--keep-levels", "1-2", "--seed", "1", *common, "other"]) == 0
    origin, same, other = (
        open_picture(here / f).pixels for f in ("photo-fills/fill-01.png", *("same/fill-00.png", "other/fill-00.png"))
    )
    assert np.array_equal(origin, same) and not np.array_equal(origin, other)
    steps = ["blend", str(kept), str(kept.with_name("fill-00.safetensors")), "--steps", "3", "--model", str(exported)]
    assert main([*steps, "--out", "steps"]) == 0
    assert np.array_equal(open_picture(here / "steps/fill-00.png").pixels, origin)
    with pytest.raises(PictureError, match="another model"):
        Fill.load(kept).check(Filler.from_pretrained(models["multiscale"], device="cpu").digest, "")


def test_the_page_fills_with_an_exported_model(exported: Path) -> None:
    from serving import client, parts, unzipped

    (image,) = Filler.from_pretrained(exported)(PIXELS, MASK, n=1, seed=4).images
    with client(exported) as web:
        answer = web.post("/api/v1/fill", files=parts(), data={"n": 1, "seed": 4})
    assert answer.status_code == 200
    found = Image.open(io.BytesIO(unzipped(answer.content)["fill-00.png"]))
    assert np.array_equal(np.asarray(found), image)


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Blocker())
from manyfill.cli import main
codes = [main(arguments) for arguments in {commands}]
if {python}:
    from manyfill import Filler
    print(Filler.from_pretrained({model!r})("photo.png", "mask.png", n=1).images[0].shape)
assert not any(name.partition(".")[0] == "torch" for name in sys.modules)
sys.exit(max(codes))
"""


def without_torch(*commands: list[str], model: str = "") -> subprocess.CompletedProcess[str]:
    code = BLOCKED.format(commands=list(commands), python=bool(model), model=model)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})


def test_filling_imports_no_torch(exported: Path, here: Path) -> None:
    photo = ["photo.png", "--mask", "mask.png", "-n", "2", "--model", str(exported)]
    Path("in").mkdir()
    shutil.copy("photo.png", "in/photo.png")
    many = ["fill-many", "in", "out", "--masks", "mask.png", "-n", "1", "--model", str(exported)]
    done = without_torch(["fill", *photo, "--runtime", "onnx"], ["info", str(exported)], many, model=str(exported))
    assert done.returncode == 0, done.stderr
    assert "(40, 50, 3)" in done.stdout and "fp32" in done.stdout and "# A card" in done.stdout
    assert Path("photo-fills/fill-01.png").exists() and Path("out/photo/fill-00.png").exists()


@pytest.mark.parametrize("command", ["fill photo.png --mask mask.png", "info", "evaluate default in --out out"])
def test_what_takes_torch_says_so_in_one_line(here: Path, command: str) -> None:
    done = without_torch(command.split())
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "manyfill[torch]" in done.stderr


# ---------------------------------------------------------------------------------------------------------- refusals


def test_a_model_for_the_other_runtime(
    models: dict[str, Path], exported: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill = ["fill", "photo.png", "--mask", "mask.png", "--model"]
    model = str(models["multiscale"])
    assert f"manyfill export {model} --onnx" in refused(capsys, *fill, model, "--runtime", "onnx")
    assert "manyfill export base64 --onnx" in refused(capsys, *fill, "base64", "--runtime", "onnx")
    assert "--runtime onnx" in refused(capsys, *fill, str(exported), "--runtime", "torch")
    assert "--device" in refused(capsys, *fill, str(exported), "--device", "toaster")
    assert "--device cpu:one" in refused(capsys, *fill, str(exported), "--device", "cpu:one")
    for more in (["--truth", "photo.png"], ["--adapt", "1"]):
        assert "can only fill" in refused(capsys, *fill, str(exported), *more)
    assert not Path("photo-fills").exists()


@pytest.mark.parametrize("file", ["sampler.onnx", "encoder.onnx", "export.json", "config.json", "manifest.json"])
@pytest.mark.parametrize("command", ["fill", "info"])
def test_damaged_directories(
    exported: Path, here: Path, capsys: pytest.CaptureFixture[str], file: str, command: str
) -> None:
    arguments = (
        ["info", "broken"] if command == "info" else ["fill", "photo.png", "--mask", "mask.png", "--model", "broken"]
    )
    shutil.copytree(exported, "broken")
    content = bytearray(Path("broken", file).read_bytes())
    content[len(content) // 2] ^= 1
    Path("broken", file).write_bytes(content)
    assert "broken" in refused(capsys, *arguments)
    Path("broken", file).unlink()
    assert file in refused(capsys, *arguments)


def test_nothing_else_is_replaced(models: dict[str, Path], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(models["plain"])
    Path("nets").mkdir()
    Path("nets/own.onnx").write_bytes(b"mine")
    Path("nets/manifest.json").write_text('{"name": "an app"}')
    for place in (model, str(here), "photo.png", "nets"):
        assert "in the way" in refused(capsys, "export", model, "--onnx", place)
    assert "is no folder" in refused(capsys, "export", model, "--onnx", "photo.png/out")
    assert load_model(model).card == "# A card\n"


def test_info_tells_of_an_exported_model(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(exported)]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("16x16, colour", "sampler graph", "fp32", "7.25", "# A card"))
    made_by = json.loads((exported / "export.json").read_text())["made_by"]
    assert made_by["manyfill"] == manyfill.__version__ and made_by["torch"] == torch.__version__
    assert is_exported(exported)


def test_another_layout_and_a_graph_that_cannot_run(exported: Path, tmp_path: Path) -> None:
    whole = read_exported(exported)
    replace(whole, graphs=whole.graphs | {"sampler": b"nothing"}).save(tmp_path / "odd")
    with pytest.raises(ManyfillError, match="sampler"):
        open_runtime(str(tmp_path / "odd"))
    other = replace(whole, config=whole.config.model_copy(update={"head": "mixture"}))
    other.save(tmp_path / "other")
    with pytest.raises(ManyfillError, match="does not fit"):
        open_runtime(str(tmp_path / "other"))
    later = whole.export.model_copy(update={"format": 2})
    replace(whole, export=later).save(tmp_path / "later")
    with pytest.raises(ManyfillError, match="another version"):
        open_runtime(str(tmp_path / "later"))
