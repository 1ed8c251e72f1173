"""The network behind FID and KID: InceptionV3 (Szegedy et al. 2016) in the variant that the published figures rest on.

Layers and names are those of torchvision, except for the pools: averages do not count the padding, and the last block
takes a maximum.

Shapes: B batch, C channels, H W size.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyfill.evaluate.perceptual import Pretrained, as_rgb

SIZE = 299


class Layer(NamedTuple):
    """A convolution to `width` channels; it keeps the size unless it strides or is not padded."""

    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


# The stages of each branch by its name: a layer, or a fork of two on the same input.
Branches = Mapping[str, Sequence[Layer | tuple[Layer, Layer]]]

FORK = (Layer(384, (1, 3)), Layer(384, (3, 1)))


def unit(channels: int, layer: Layer) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    rows, columns = layer.kernel
    padding = (rows // 2, columns // 2) if layer.padded and layer.stride == 1 else 0
    conv = nn.Conv2d(channels, layer.width, layer.kernel, layer.stride, padding, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(layer.width, eps=1e-3), relu=nn.ReLU()))


def average() -> nn.Module:
    return nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)


class Mixed(nn.Module):
    """Branches side by side, their channels one after the other; the pool's comes last.

    A branch's stages are numbered `name_1`, `name_2` unless there is one only; a fork's ends add "a" and "b". `pooled`
    is the width of the layer behind the pool, 0 for none.
    """

    def __init__(self, channels: int, branches: Branches, pool: nn.Module, pooled: int = 0) -> None:
        super().__init__()
        self.pool = pool
        self.paths: list[list[list[str]]] = []
        for branch, stages in branches.items():
            path, width = [], channels
            for number, stage in enumerate(stages, 1):
                name = branch if len(stages) == 1 else f"{branch}_{number}"
                ends = {name: stage} if isinstance(stage, Layer) else {f"{name}a": stage[0], f"{name}b": stage[1]}
                for end, layer in ends.items():
                    self.add_module(end, unit(width, layer))
                path.append(list(ends))
                width = sum(layer.width for layer in ends.values())
            self.paths.append(path)
        if pooled:
            self.branch_pool = unit(channels, Layer(pooled))
        self.paths.append([["pool"], ["branch_pool"]] if pooled else [["pool"]])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._along(path, x) for path in self.paths], 1)

    def _along(self, path: list[list[str]], h: Tensor) -> Tensor:
        for names in path:
            h = torch.cat([self.get_submodule(name)(h) for name in names], 1)
        return h


def block_a(channels: int, pooled: int) -> Mixed:
    branches: Branches = {
        "branch1x1": [Layer(64)],
        "branch5x5": [Layer(48), Layer(64, (5, 5))],
        "branch3x3dbl": [Layer(64), Layer(96, (3, 3)), Layer(96, (3, 3))],
    }
    return Mixed(channels, branches, average(), pooled)


def block_b(channels: int) -> Mixed:
    branches: Branches = {
        "branch3x3": [Layer(384, (3, 3), 2)],
        "branch3x3dbl": [Layer(64), Layer(96, (3, 3)), Layer(96, (3, 3), 2)],
    }
    return Mixed(channels, branches, nn.MaxPool2d(3, 2))


def block_c(channels: int, width: int) -> Mixed:
    row, column = Layer(width, (1, 7)), Layer(width, (7, 1))
    branches: Branches = {
        "branch1x1": [Layer(192)],
        "branch7x7": [Layer(width), row, Layer(192, (7, 1))],
        "branch7x7dbl": [Layer(width), column, row, column, Layer(192, (1, 7))],
    }
    return Mixed(channels, branches, average(), 192)


def block_d(channels: int) -> Mixed:
    branches: Branches = {
        "branch3x3": [Layer(192), Layer(320, (3, 3), 2)],
        "branch7x7x3": [Layer(192), Layer(192, (1, 7)), Layer(192, (7, 1)), Layer(192, (3, 3), 2)],
    }
    return Mixed(channels, branches, nn.MaxPool2d(3, 2))


def block_e(channels: int, pool: nn.Module) -> Mixed:
    branches: Branches = {
        "branch1x1": [Layer(320)],
        "branch3x3": [Layer(384), FORK],
        "branch3x3dbl": [Layer(448), Layer(384, (3, 3)), FORK],
    }
    return Mixed(channels, branches, pool, 192)


class Inception(Pretrained):
    """The 2048 features per picture that FID and KID compare."""

    HOW_TO_GET = """\
FID and KID need the InceptionV3 weights that were ported from TensorFlow for FID, as a safetensors file. In Python:

    from safetensors.torch import save_file
    from torch.hub import load_state_dict_from_url as get

    release = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    layers = get(release + "pt_inception-2015-12-05-6726825d.pth", map_location="cpu", weights_only=True)
    save_file(layers, "inception.safetensors")
"""

    def __init__(self) -> None:
        super().__init__()
        stages = {
            "Conv2d_1a_3x3": unit(3, Layer(32, (3, 3), 2)),
            "Conv2d_2a_3x3": unit(32, Layer(32, (3, 3), padded=False)),
            "Conv2d_2b_3x3": unit(32, Layer(64, (3, 3))),
            "pool_1": nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": unit(64, Layer(80)),
            "Conv2d_4a_3x3": unit(80, Layer(192, (3, 3), padded=False)),
            "pool_2": nn.MaxPool2d(3, 2),
            "Mixed_5b": block_a(192, 32),
            "Mixed_5c": block_a(256, 64),
            "Mixed_5d": block_a(288, 64),
            "Mixed_6a": block_b(288),
            "Mixed_6b": block_c(768, 128),
            "Mixed_6c": block_c(768, 160),
            "Mixed_6d": block_c(768, 160),
            "Mixed_6e": block_c(768, 192),
            "Mixed_7a": block_d(768),
            "Mixed_7b": block_e(1280, average()),
            "Mixed_7c": block_e(2048, nn.MaxPool2d(3, 1, padding=1)),
        }
        for name, stage in stages.items():
            self.add_module(name, stage)

    def forward(self, pictures: Tensor) -> Tensor:
        """Features (B, 2048) of pictures (B, 3, H, W), or grey (B, 1, H, W), on [-1, 1]; PictureError for others.

        Pictures are brought to 299x299 bilinearly without smoothing, larger ones too, as the common ports do.
        """
        h = F.interpolate(as_rgb(pictures), (SIZE, SIZE), mode="bilinear", align_corners=False)
        for stage in self.children():
            h = stage(h)
        return h.mean((2, 3))
