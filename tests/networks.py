"""What the tests of networks with published weights share: random weights in their place, recipes followed offline."""

import math
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.hub
from torch import Tensor, nn

from manyfill.rng import generator


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "normal"), dtype=torch.float64)


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """On [-1, 1]."""
    return torch.rand(*shape, generator=generator(seed, "pictures")) * 2 - 1


def randomised(network: nn.Module) -> nn.Module:
    """The network with weights that keep the signal's size through all layers, statistics that are not 0 and 1."""
    g = generator(0, "weights")
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data.normal_(0, math.sqrt(2 / layer.weight[0].numel()), generator=g)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            for values, low, high in (
                (layer.weight.data, 0.5, 1.5),
                (layer.bias.data, -0.2, 0.3),
                (layer.running_mean, -0.2, 0.2),
                (layer.running_var, 0.3, 1.7),
            ):
                values.uniform_(low, high, generator=g)
    return network.eval().requires_grad_(False)


def followed(recipe: str, downloads: Callable[[str], dict[str, Tensor]], folder: Path) -> None:
    """Do what the indented lines of a HOW_TO_GET say, in a folder and without the net."""

    def get(url: str, *, map_location: str, weights_only: bool) -> dict[str, Tensor]:
        assert map_location == "cpu" and weights_only
        return downloads(url)

    code = "\n".join(line for line in recipe.splitlines() if line.startswith("    "))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(torch.hub, "load_state_dict_from_url", get)
        exec(compile(textwrap.dedent(code), "HOW_TO_GET", "exec"), {})
