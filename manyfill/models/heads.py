"""Pixel distributions. A head has `log_prob(h, canvas, x, m)` and `sample(h, canvas, known, m, noise)`.

`canvas` is the picture as the top-down path has drawn it, from which the pixel means start.

Shapes: B batch, C picture channels, H W size, R hole pixels of the whole batch, K mixture components.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from manyfill.distributions import LogisticMixture
from manyfill.models.blocks import activation
from manyfill.models.config import ModelConfig


class MixtureHead(nn.Module):
    """Pixels independent given h: a mixture of discretised logistics each, worked out at hole pixels only."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.channels, self.mixtures = config.channels, config.mixtures
        self.pairs = config.channels * (config.channels - 1) // 2 if config.couple_channels else 0
        self.split = [1, config.channels, config.channels, self.pairs]
        self.active = activation(config)
        self.project = nn.Linear(width, sum(self.split) * config.mixtures)
        nn.init.normal_(self.project.weight, std=0.1 * width**-0.5)
        nn.init.zeros_(self.project.bias)
        with torch.no_grad():
            _, means, log_scales, _ = self.project.bias.view(-1, config.mixtures).split(self.split)
            means[0] = torch.linspace(-0.6, 0.6, config.mixtures) if config.mixtures > 1 else 0.0
            log_scales.fill_(-2.0)

    def distribution(self, h: Tensor, canvas: Tensor, m: Tensor) -> tuple[LogisticMixture, Tensor]:
        """The pixel distribution at the R hole pixels, and their indices (R,) among all B*H*W."""
        where = m.flatten().nonzero()[:, 0]
        rows = h.permute(0, 2, 3, 1).reshape(-1, h.shape[1]).index_select(0, where)
        raw = self.project(self.active(rows)).float().view(len(where), sum(self.split), self.mixtures)
        base = canvas.permute(0, 2, 3, 1).reshape(-1, self.channels, 1).index_select(0, where)
        logits, means, log_scales, couplings = raw.split(self.split, 1)
        mixture = LogisticMixture(
            logits[:, 0], means + base, log_scales.clamp(min=-7.0), torch.tanh(couplings) if self.pairs else None
        )
        return mixture, where

    def log_prob(self, h: Tensor, canvas: Tensor, x: Tensor, m: Tensor) -> Tensor:
        """Log-probability (B,) of the hole's pixels of `x` (B, C, H, W), in nats."""
        mixture, where = self.distribution(h, canvas, m)
        pixels = x.permute(0, 2, 3, 1).reshape(-1, self.channels).index_select(0, where)
        flat = torch.zeros(m.numel(), device=h.device).index_put((where,), mixture.log_prob(pixels))
        return flat.view(len(m), -1).sum(1)

    def sample(
        self, h: Tensor, canvas: Tensor, known: Tensor, m: Tensor, noise: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Pictures and their expectation (B, C, H, W): drawn, or averaged, in the hole and `known` elsewhere."""
        mixture, where = self.distribution(h, canvas, m)
        counts = [int(count) for count in m.flatten(1).sum(1)]
        # One generator per picture, so that a fill does not depend on which others are drawn with it.
        uniform = [
            torch.rand(n, self.mixtures + self.channels, generator=g) for n, g in zip(counts, noise, strict=True)
        ]
        u = torch.cat(uniform).clamp(1e-7, 1 - 1e-7).to(h.device)
        drawn = mixture.sample(*u.split([self.mixtures, self.channels], 1))
        return self._paste(drawn, where, known), self._paste(mixture.mean(), where, known)

    def _paste(self, pixels: Tensor, where: Tensor, known: Tensor) -> Tensor:
        rows = known.permute(0, 2, 3, 1).reshape(-1, self.channels).index_copy(0, where, pixels.to(known.dtype))
        return rows.view(len(known), *known.shape[2:], self.channels).permute(0, 3, 1, 2)
