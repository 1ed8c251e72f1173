"""The one shared feature extractor, run on the whole picture and on the picture with its hole blanked.

Shapes: B batch, C picture channels, H W size.
"""

import torch
from torch import Tensor, nn

from manyfill.models.blocks import Downsample, blocks, conv
from manyfill.models.config import ModelConfig

Features = dict[int, Tensor]
"""Feature maps by their size: size -> (B, width, size, size)."""


class FeatureExtractor(nn.Module):
    """Pictures (B, C, H, W), masks (B, 1, H, W) and guides to one feature map per stage."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels + 1 + (config.channels + 1 if config.guide else 0)
        gain = max(sum(stage.depth for stage in config.stages), 1) ** -0.5
        self.stem = conv(channels, config.stages[0].width)
        self.stages = nn.ModuleList(
            blocks(config, stage.depth, stage.width, stage.size, gain) for stage in config.stages
        )
        self.downs = nn.ModuleList(
            Downsample(config, fine.width, coarse.width, fine.size // coarse.size, coarse.size == 1)
            for fine, coarse in zip(config.stages, config.stages[1:], strict=False)
        )

    def forward(self, x: Tensor, m: Tensor, guide: Tensor, guide_present: Tensor) -> Features:
        """`guide` (B, C, H, W) counts where `guide_present` (B,) is 1; what `x` holds where `m` is 1 is read too."""
        planes = [x, m]
        if self.config.guide:
            flag = guide_present.view(-1, 1, 1, 1).expand_as(m)
            planes += [guide * flag, flag]
        h = self.stem(torch.cat(planes, 1).contiguous(memory_format=torch.channels_last))
        features: Features = {}
        for index, (spec, stage) in enumerate(zip(self.config.stages, self.stages, strict=True)):
            if index:
                h = self.downs[index - 1](h)
            h = features[spec.size] = stage(h)
        return features
