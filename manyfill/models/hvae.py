"""The conditional hierarchical VAE: a bound on the likelihood of the hole, and draws from it.

Shapes: B batch, C picture channels, S the model's size, L levels, Z latent channels, N fills.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyfill.distributions import Gaussian
from manyfill.models.bound import Bound, level_kl, nested_losses
from manyfill.models.config import ModelConfig
from manyfill.models.features import FeatureExtractor
from manyfill.models.heads import MixtureHead
from manyfill.models.topdown import Choose, Evidence, Step, TopDown


@dataclass(frozen=True)
class Known:
    """All that fills of a batch share, worked out once: x (B, C, S, S) with 0 in the hole, m (B, 1, S, S)."""

    x: Tensor
    m: Tensor
    evidence: Evidence
    missing: dict[int, Tensor]

    def repeat(self, n: int) -> "Known":
        """Each picture n times in a row: B becomes B * n."""

        def many(t: Tensor) -> Tensor:
            return t.repeat_interleave(n, 0)

        evidence = Evidence(_each(self.evidence.features, many), _each(self.evidence.pictures, many))
        return Known(many(self.x), many(self.m), evidence, _each(self.missing, many))


@dataclass(frozen=True)
class Fills:
    """Drawn fills: x (N, C, S, S), the pixel distribution's mean (N, C, S, S), latents by level (N, Z, size, size)."""

    x: Tensor
    mean: Tensor
    latents: list[Tensor]


class ConditionalHVAE(nn.Module):
    """p(x_H, z | x_K, m, guide) and q(z | x, m, guide) of `docs/design.md`, section 2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.features = FeatureExtractor(config)
        self.topdown = TopDown(config)
        self.head = MixtureHead(config, config.levels[-1].width)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        x: Tensor,
        m: Tensor,
        guide: Tensor | None = None,
        guide_present: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """One sample of the bound for pictures x (B, C, S, S) in [-1, 1] with holes m (B, 1, S, S) of 0 and 1.

        `guide` (B, C, S, S) counts where `guide_present` (B,) is 1; the posterior's noise comes from `generator`.
        """
        pixels, steps = self.infer(x, m, guide, guide_present, generator)
        dims = m.flatten(1).sum(1) * self.config.channels
        return Bound(pixels, level_kl(steps), dims, nested_losses(self._pictures(x), steps))

    def infer(
        self,
        x: Tensor,
        m: Tensor,
        guide: Tensor | None = None,
        guide_present: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, list[Step]]:
        """One traversal with the posterior: the pixel term (B,) in nats and every level's step; inputs as `forward`."""
        guide, guide_present = _guide(x, guide, guide_present)
        nothing_missing = torch.zeros_like(m)
        # One batched pass reads the blanked and the whole picture with the same parameters.
        both = self.features(
            torch.cat([x, x]),
            torch.cat([m, nothing_missing]),
            torch.cat([guide, guide]),
            torch.cat([guide_present, guide_present]),
        )
        known = Evidence(_each(both, lambda h: h[: len(x)]), self._pictures(x * (1 - m)))
        full = Evidence(_each(both, lambda h: h[len(x) :]), self._pictures(x))

        def from_posterior(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
            assert posterior is not None
            return posterior.sample(torch.randn(posterior.mean.shape, generator=generator, device=x.device))

        h, canvas, steps = self.topdown(known, full, self._missing(m), from_posterior)
        return self.head.log_prob(h, canvas, x, m), steps

    def encode_known(
        self, x: Tensor, m: Tensor, guide: Tensor | None = None, guide_present: Tensor | None = None
    ) -> Known:
        """What the known pixels tell, once per picture; x and m as in `forward`, hole pixels of x are not read."""
        x = x * (1 - m)
        features = self.features(x, m, *_guide(x, guide, guide_present))
        return Known(x, m, Evidence(features, self._pictures(x)), self._missing(m))

    def fill(self, known: Known, noise: Sequence[torch.Generator], temperature: float = 1.0) -> Fills:
        """Draw len(noise) fills, the same number for each picture, each from a generator of its own."""
        assert len(noise) % len(known.x) == 0, f"{len(noise)} fills cannot be shared by {len(known.x)} pictures"
        known = known.repeat(len(noise) // len(known.x))

        def from_prior(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
            return prior.sample(_normal(noise, prior.mean), temperature)

        return self.decode(known, from_prior, noise)

    def decode(self, known: Known, choose: Choose, noise: Sequence[torch.Generator]) -> Fills:
        """Traverse with `choose` and draw the pixels of every picture of `known`, one generator each."""
        h, canvas, steps = self.topdown(known.evidence, None, known.missing, choose)
        x, mean = self.head.sample(h, canvas, known.x, known.m, noise)
        return Fills(x, mean, [step.z for step in steps])

    def _pictures(self, x: Tensor) -> dict[int, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        return {spec.size: F.adaptive_avg_pool2d(x, spec.size) for spec in self.config.levels}

    def _missing(self, m: Tensor) -> dict[int, Tensor]:
        return {spec.size: F.adaptive_avg_pool2d(m, spec.size) for spec in self.config.levels}


def _each(maps: dict[int, Tensor], change: Callable[[Tensor], Tensor]) -> dict[int, Tensor]:
    return {size: change(h) for size, h in maps.items()}


def _guide(x: Tensor, guide: Tensor | None, present: Tensor | None) -> tuple[Tensor, Tensor]:
    if guide is None:
        return torch.zeros_like(x), x.new_zeros(len(x))
    return guide, x.new_ones(len(x)) if present is None else present


def _normal(noise: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Standard normal noise of the shape of `like`, one generator per row."""
    return torch.stack([torch.randn(like.shape[1:], generator=g) for g in noise]).to(like.device)
