"""The benchmark against others' code, on tiny checkouts made here."""

import json
import math
import sys
from functools import partial
from pathlib import Path

import pytest
import skimage.data
import torch
from checkouts import write
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import common
import peers
from contenders.contender import HOLE, WHOLE, Contender
from contenders.vaeac import VAEAC, log_mass
from contenders.vdvae import IPA, VDVAE, thinned

from manyfill.errors import ConfigError

PEERS = {"vdvae": VDVAE, "ipa": IPA, "vaeac": VAEAC}


def made(folder: Path, peer: str, size: int = 64, wanted: int = 2000) -> Contender:
    kind: type = PEERS[peer]
    one: Contender = kind(write(folder, peer), wanted, size)
    return one


def ended(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["peers.py", *arguments])
    with pytest.raises(SystemExit) as end:
        common.run(peers.main)
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize("peer", PEERS)
def test_a_folder_that_is_no_checkout_is_refused_in_one_line(
    peer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--pictures", str(tmp_path), "--speed-only", "--preset", "tiny32", f"--{peer}", str(tmp_path)]
    assert ended(monkeypatch, arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"--{peer} {tmp_path}: is no checkout of github.com/") and error.count("\n") == 1


def test_a_checkout_that_needs_what_is_not_installed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (write(tmp_path, "vdvae") / "vae.py").write_text("import no_such_package_anywhere")
    arguments = ["--pictures", str(tmp_path), "--speed-only", "--preset", "tiny32", "--vdvae", str(tmp_path / "vdvae")]
    assert ended(monkeypatch, arguments) == 2
    error = capsys.readouterr().err
    assert "no_such_package_anywhere" in error and "leave --vdvae out" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "no peer to compare with"),
        (["--vdvae", "x"], "--validation"),
        (["--vdvae", "x", "--speed-only", "--rounds", "0"], "--rounds"),
        (["--vdvae", "x", "--speed-only", "--blocks", "2"], "--blocks"),
        (["--vdvae", "x", "--speed-only", "--preset", "x"], "--preset x"),
    ],
)
def test_bad_flags_are_one_line_and_exit_2(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, ["--pictures", "x", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("peer", PEERS)
def test_adapters_learn_judge_and_fill_by_the_code_of_the_checkout(peer: str, tmp_path: Path) -> None:
    one = made(tmp_path, peer)
    x = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    m = torch.zeros(2, 1, 64, 64)
    m[..., 16:48, 16:48] = 1
    one.prepare(x)
    before = one.nats(x, m, one.modes[0])
    for _ in range(20):
        one.step(x, m, 0.0)
    assert one.nats(x, m, one.modes[0]) < before
    for mode in one.modes:
        drawn = one.fill(x, m, mode)
        assert drawn.shape == x.shape and drawn.abs().max() <= 1
        if one.task == HOLE:
            assert torch.equal(drawn * (1 - m), x * (1 - m)) and not torch.equal(drawn, x)


@pytest.mark.parametrize("peer", PEERS)
def test_nothing_of_a_checkout_is_left_for_others_to_import(peer: str, tmp_path: Path) -> None:
    path, finders, modules = list(sys.path), list(sys.meta_path), set(sys.modules)
    made(tmp_path, peer)
    assert sys.path == path and sys.meta_path == finders
    left = {name.partition(".")[0] for name in set(sys.modules) - modules}
    assert not left & {
        *("hps", "vae", "train", "nn_utils", "celeba_model"),
        *("apex", "mpi4py", "wandb", "torchvision"),
    }


@pytest.mark.parametrize("peer", PEERS)
def test_widths_come_near_to_the_parameters_asked_for(peer: str, tmp_path: Path) -> None:
    assert made(tmp_path, peer, wanted=6000).parameters == pytest.approx(6000, rel=0.15)


def test_vaeac_is_refused_for_sizes_that_its_networks_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="64 or 128 pixels, not 32"):
        made(tmp_path, "vaeac", size=32)


def test_layouts_are_thinned_and_cut_to_the_pictures_size(tmp_path: Path) -> None:
    assert thinned("64x11,64d2,32x20,1x1", 0.25) == "64x3,64d2,32x5,1x1"
    one = made(tmp_path, "vdvae", size=32)
    assert isinstance(one, VDVAE)
    assert (one.settings.enc_blocks, one.settings.dec_blocks) == ("32x4", "32x8")


@pytest.mark.parametrize("mean, deviation", [(0.0, 0.01), (0.3, 0.2), (-1.5, 0.05), (3.0, 2.0)])
def test_discretised_gaussians_are_probabilities(mean: float, deviation: float) -> None:
    values = torch.arange(256) / 127.5 - 1
    found = log_mass(values, torch.full((256,), mean), torch.full((256,), deviation))
    assert torch.isfinite(found).all() and found.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_all_see_the_same_batches_in_the_same_order(tmp_path: Path) -> None:
    folder(tmp_path)
    pictures = peers.Pictures([tmp_path / "pictures"], 32)
    first, hole = pictures.batch(HOLE, 3, 4)
    again, whole = pictures.batch(WHOLE, 3, 4)
    assert torch.equal(first, again) and hole.sum() == 4 * 16 * 16 and whole.sum() == 4 * 32 * 32
    assert not torch.equal(first, pictures.batch(HOLE, 7, 4)[0])


def folder(tmp_path: Path) -> Path:
    """Six tiles of a photograph."""
    (tmp_path / "pictures").mkdir()
    photograph = skimage.data.astronaut()
    for tile in range(6):
        piece = photograph[64 * tile : 64 * tile + 64, 100:164]
        Image.fromarray(piece).save(tmp_path / "pictures" / f"{tile}.png")
    return tmp_path / "pictures"


def test_quality_needs_the_speed_of_an_earlier_run_or_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = str(folder(tmp_path))
    arguments = ["--pictures", pictures, "--validation", pictures, "--preset", "tiny32", "--out", str(tmp_path / "out")]
    arguments += ["--vdvae", str(write(tmp_path, "vdvae")), "--quality-only"]
    assert ended(monkeypatch, arguments) == 2
    assert "--speed-only first" in capsys.readouterr().err


def test_of_each_peer_the_quickest_layout_learns() -> None:
    makers = [partial(kind, share) for kind in (VDVAE, IPA) for share in (1, 0.25)]
    rates = {"a": 2.0, "b": 3.0, "c": 5.0, "d": 4.0}
    speed = {name: {"task": HOLE, "train": {"pictures_per_second": rate}} for name, rate in rates.items()}
    assert peers.quickest(makers, speed) == [makers[1], makers[2]]


def test_one_command_gives_figures_a_table_and_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, out = str(folder(tmp_path)), tmp_path / "out"
    monkeypatch.setattr(peers, "BURST", 0.01)
    arguments = ["--pictures", pictures, "--validation", pictures, "--preset", "tiny32", "--out", str(out)]
    arguments += [f"--{peer}={write(tmp_path, peer)}" for peer in ("vdvae", "ipa")]
    arguments += [
        "--rounds",
        "1",
        "--batch",
        "2",
        "--minutes",
        "0.002",
        "--scored",
        "2",
        "--fills",
        "2",
        "--blocks",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["peers.py", *arguments])
    common.run(peers.main)
    record = json.loads((out / "peers.json").read_text())
    names = ["manyfill", f"manyfill, {WHOLE}", "vdvae", "ipa"]
    assert list(record["speed"]) == list(record["quality"]) == names
    assert record["speed"]["manyfill"]["train"]["manyfill_times"] == 1
    assert record["speed"]["vdvae"]["commit"] == "unknown"
    for row in record["quality"].values():
        assert math.isfinite(row["bits_per_dim"]) and row["pictures_seen"] >= 2
        assert (row["crps"] is None) == (row["task"] == WHOLE)
    assert record["quality"]["ipa"]["steps_refused"] == 1
    page = (out / "peers.md").read_text()
    assert all(page.count(f"| {name} |") == 2 for name in names) and "**Quality** after 0.002 minutes" in page
    assert (out / "peers.png").stat().st_size > 1000
