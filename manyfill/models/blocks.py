"""The few parts that every network here is built of: convolution with its initialisation, norms, blocks, resampling.

Shapes: B batch, C channels, H W size, R rows: positions of the whole batch.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from manyfill.models.config import ModelConfig


def conv(
    channels_in: int,
    channels_out: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    padding: int | None = None,
    gain: float = 1.0,
) -> nn.Conv2d:
    """Convolution that keeps the size (stride 1) or tiles it (stride = kernel); He-normal weights times `gain`."""
    if padding is None:
        padding = kernel // 2 if stride == 1 else 0
    layer = nn.Conv2d(channels_in, channels_out, kernel, stride, padding)
    nn.init.normal_(layer.weight, std=gain * math.sqrt(2 / (channels_in * kernel**2)))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def dense(channels_in: int, channels_out: int, *, gain: float = 1.0) -> nn.Linear:
    """A layer over rows, started as `conv` is."""
    layer = nn.Linear(channels_in, channels_out)
    nn.init.normal_(layer.weight, std=gain * math.sqrt(2 / channels_in))
    nn.init.zeros_(layer.bias)
    return layer


def kernel_at(size: int, kernel: int = 3) -> int:
    """The largest useful kernel on size x size maps: the outer weights of a larger one would only ever see padding."""
    return min(kernel, 2 * size - 1)


def norm(config: ModelConfig, width: int) -> nn.Module:
    if config.norm == "batch":
        return nn.BatchNorm2d(width)
    if config.norm == "group":
        return nn.GroupNorm(math.gcd(width, 8), width)
    return nn.Identity()


def activation(config: ModelConfig) -> nn.Module:
    return nn.SiLU() if config.activation == "silu" else nn.ReLU()


def dropout(config: ModelConfig) -> list[nn.Module]:
    """A layer that drops whole maps, or none."""
    return [nn.Dropout2d(config.dropout)] if config.dropout else []


class ResidualBlock(nn.Module):
    """h + f(h), f two pre-activated 3x3 convolutions; `gain` scales the branch so that a deep stack starts tame."""

    def __init__(self, config: ModelConfig, width: int, size: int, gain: float) -> None:
        super().__init__()
        kernel = kernel_at(size)
        self.branch = nn.Sequential(
            norm(config, width),
            activation(config),
            conv(width, width, kernel),
            norm(config, width),
            activation(config),
            *dropout(config),
            conv(width, width, kernel, gain=gain),
        )

    def forward(self, h: Tensor) -> Tensor:
        return h + self.branch(h)


def blocks(config: ModelConfig, depth: int, width: int, size: int, gain: float) -> nn.Sequential:
    """`depth` residual blocks on size x size maps, or the 2017 project's plain convolution, norm, activation."""
    if config.block == "residual":
        return nn.Sequential(*(ResidualBlock(config, width, size, gain) for _ in range(depth)))
    plain = (
        nn.Sequential(conv(width, width, kernel_at(size)), norm(config, width), activation(config), *dropout(config))
        for _ in range(depth)
    )
    return nn.Sequential(*plain)


class Downsample(nn.Module):
    """To a map `factor` times smaller and `width_out` wide."""

    def __init__(self, config: ModelConfig, width_in: int, width_out: int, factor: int, to_vector: bool) -> None:
        super().__init__()
        # Down to one vector there is nothing left to pool over: a dense layer, which a k x k tiling convolution is.
        pooled = config.down == "maxpool" and not to_vector
        self.pool = nn.MaxPool2d(factor) if pooled else None
        self.project = (
            conv(width_in, width_out, 3) if pooled else conv(width_in, width_out, factor, stride=factor, gain=0.7)
        )

    def forward(self, h: Tensor) -> Tensor:
        return self.project(h if self.pool is None else self.pool(h))


class Upsample(nn.Module):
    """To a map `factor` times larger and `width_out` wide."""

    def __init__(self, config: ModelConfig, width_in: int, width_out: int, factor: int) -> None:
        super().__init__()
        self.factor, self.mode = factor, config.up
        self.project = conv(width_in, width_out, 1, gain=0.7)

    def forward(self, h: Tensor) -> Tensor:
        h = self.project(h)
        if self.mode == "nearest":
            return F.interpolate(h, scale_factor=self.factor, mode="nearest")
        return F.interpolate(h, scale_factor=self.factor, mode="bilinear", align_corners=False)


def rows_at(x: Tensor, where: Tensor) -> Tensor:
    """The rows (R, C) of maps (B, C, H, W) at the indices `where` (R,) among all B*H*W."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).index_select(0, where)


def pasted(rows: Tensor, where: Tensor, x: Tensor) -> Tensor:
    """The maps x (B, C, H, W) with these rows (R, C) in the places `where`."""
    flat = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).index_copy(0, where, rows.to(x.dtype))
    return flat.view(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
