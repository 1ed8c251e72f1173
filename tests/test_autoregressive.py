"""Autoregressive models from the command line: trained, filled with and evaluated like any other."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from autoregression import tiny

from manyfill import Filler
from manyfill.checkpoint import load_model
from manyfill.cli import main
from manyfill.masks import write_mask
from manyfill.models.config import PRESETS, ModelConfig
from manyfill.models.hvae import ConditionalHVAE
from manyfill.models.latent_prior import AutoregressivePrior
from manyfill.models.multiscale import MultiscaleHead
from manyfill.models.pixelcnn import PixelCNNHead

CHAINED = ", ".join(f'{{size = {size}, width = 4, latent = 2, prior = "autoregressive"}}' for size in (8, 16))
HOLE = np.zeros((40, 40), bool)
HOLE[10:30, 10:30] = True


def test_the_presets_are_base64_but_for_their_parts() -> None:
    base, pixelvae, multiscale = (PRESETS[name] for name in ("base64", "pixelvae64", "multiscale64"))
    assert [level.autoregressive for level in pixelvae.levels] == [level.size > 1 for level in base.levels]
    assert pixelvae.head == "pixelcnn" and multiscale.head == "multiscale"
    assert multiscale.model_copy(update={"head": "mixture"}) == base
    plain = tuple(level.model_copy(update={"prior": "gaussian"}) for level in pixelvae.levels)
    assert pixelvae.model_copy(update={"head": "mixture", "levels": plain}) == base
    assert all(ModelConfig.model_validate(config.model_dump()) == config for config in PRESETS.values())


@pytest.mark.parametrize("head,part", [("pixelcnn", PixelCNNHead), ("multiscale", MultiscaleHead)])
def test_train_fill_and_evaluate(head: str, part: type, photos: Path, micro_toml: Path, tmp_path: Path) -> None:
    lines = micro_toml.read_text().replace("size = 8", "size = 16").replace("size = 4", "size = 8").splitlines()
    lines = [f'levels = [{CHAINED}]\nhead = "{head}"' if line.startswith("levels") else line for line in lines]
    recipe, run, photo, mask = (
        tmp_path / "recipe.toml",
        tmp_path / "run",
        sorted(photos.iterdir())[0],
        tmp_path / "m.png",
    )
    recipe.write_text("\n".join(lines))
    write_mask(mask, HOLE)

    assert main(["train", str(photos), "--config", str(recipe), "--steps", "3", "--out", str(run)]) == 0
    model = load_model(str(run / "model")).model
    assert isinstance(model.head, part)
    assert all(isinstance(block.chain, AutoregressivePrior) for block in model.topdown.blocks)

    fill = ["fill", str(photo), "--mask", str(mask), "-n", "3", "--truth", str(photo), "--model", str(run / "model")]
    for folder in ("one", "two"):
        assert main([*fill, "--out", str(tmp_path / folder), "--json"]) == 0
    assert json.loads((tmp_path / "one" / "fill.json").read_text())["bound"]["nats"] < 0
    one, two = ([(tmp_path / folder / f"fill-{i:02d}.png").read_bytes() for i in range(3)] for folder in ("one", "two"))
    assert one == two and len(set(one)) == 3

    options = ["--samples", "3", "--bound-samples", "2", "--masks", "centre", "--baselines", "mean", "--limit", "2"]
    assert main(["evaluate", str(run / "model"), str(photos), "--out", str(tmp_path / "report"), *options]) == 0
    assert (tmp_path / "report" / "report.html").exists()


@pytest.mark.parametrize("head,priors", [("pixelcnn", True), ("multiscale", False)])
def test_a_fill_is_the_same_whichever_others_are_drawn_with_it(head: str, priors: bool, one_thread: None) -> None:
    torch.manual_seed(0)
    filler = Filler(ConditionalHVAE(tiny(head, priors=priors)), "test")
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    few, many = (filler(picture, HOLE, n=n).images for n in (2, 5))
    for one, two in zip(few, many, strict=False):
        assert (one != two).mean() < 1e-3
