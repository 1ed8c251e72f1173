"""Distributions as objects: Gaussians for latents, discretised logistic mixtures for pixels.

Shapes: `...` any leading shape, C picture channels, K mixture components. Log-probabilities are in nats, float32 or
float64 (as given).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions, one per element of `mean` (...) with standard deviation `std` (...)."""

    mean: Tensor
    std: Tensor

    def given(self, z: Tensor) -> "Gaussian":
        """What every element is drawn from given those of z (...) before it: the same, for they are independent."""
        return self

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of every element (...)."""
        return -0.5 * ((z - self.mean) / self.std) ** 2 - self.std.log() - 0.5 * math.log(2 * math.pi)

    def sample(self, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Reparameterised draw: `noise` (...) is standard normal, `temperature` (...) scales the deviation."""
        return self.mean + self.std * (temperature * noise)


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) of every element (...), analytic; Kingma & Welling (2013), appendix B, for two general normals."""
    ratio = q.std / p.std
    return 0.5 * (ratio**2 + ((q.mean - p.mean) / p.std) ** 2 - 1) - ratio.log()


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise (...), from uniform on (0, 1): added to logits, it has the largest drawn by its share."""
    return -torch.log(-torch.log(uniform))


def logistic(uniform: Tensor) -> Tensor:
    """Standard logistic noise (...), from uniform on (0, 1)."""
    return torch.log(uniform) - torch.log1p(-uniform)


@dataclass(frozen=True)
class LogisticMixture:
    """Mixture of logistics discretised to `bins` evenly spaced values on [-1, 1], joint over the channels of a pixel.

    Salimans et al. (2017), PixelCNN++, section 2.1-2.2: one component is drawn per pixel; within it channel c's mean
    is shifted linearly by the values of the channels before it (`couplings`, None for no shift). The first and last
    value take the tails, so the probabilities of all values sum to 1.

    logits (..., K); means, log_scales (..., C, K); couplings (..., C(C-1)/2, K) or None.
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    couplings: Tensor | None = None
    bins: int = 256

    def _shifts(self, x: Tensor) -> Tensor:
        """How far the channels before it move each channel's mean (..., C, K), for pixel values `x` (..., C)."""
        assert self.couplings is not None
        shifts, used = [torch.zeros_like(self.logits)], 0
        for c in range(1, x.shape[-1]):
            before = self.couplings[..., used : used + c, :] * x[..., :c, None]
            shifts.append(before.sum(-2))
            used += c
        return torch.stack(shifts, dim=-2)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability (...) of pixels `x` (..., C), whose values lie on the grid of `bins` values."""
        means = self.means if self.couplings is None else self.means + self._shifts(x)
        centred = x[..., None] - means
        inverse_scale = torch.exp(-self.log_scales)
        half = 1.0 / (self.bins - 1)
        upper, lower = inverse_scale * (centred + half), inverse_scale * (centred - half)
        # log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a)): exact at any scale.
        log_below, log_above = F.logsigmoid(upper), F.logsigmoid(-lower)
        log_width = torch.log(-torch.expm1(-2 * half * inverse_scale))
        log_p = log_below + log_above + log_width
        log_p = torch.where(x[..., None] < -1 + half, log_below, log_p)
        log_p = torch.where(x[..., None] > 1 - half, log_above, log_p)
        return torch.logsumexp(F.log_softmax(self.logits, -1) + log_p.sum(-2), -1)

    def sample(self, component_noise: Tensor, value_noise: Tensor) -> Tensor:
        """Draw pixels (..., C) from noise, the components' (..., K) as of `gumbel`, the values' (..., C) `logistic`."""
        choice = (self.logits + component_noise).argmax(-1)[..., None, None]

        def chosen(parameters: Tensor) -> Tensor:
            return parameters.gather(-1, choice.expand(*parameters.shape[:-1], 1))[..., 0]

        shifted = torch.addcmul(chosen(self.means), chosen(self.log_scales).exp(), value_noise).unbind(-1)
        couplings = () if self.couplings is None else chosen(self.couplings).unbind(-1)
        values: list[Tensor] = []
        for c, value in enumerate(shifted):
            for before, coupling in zip(values, couplings[c * (c - 1) // 2 :], strict=False):
                value = torch.addcmul(value, coupling, before)
            values.append(self._to_grid(value))
        return torch.stack(values, dim=-1)

    def mean(self) -> Tensor:
        """Expected pixel (..., C) of the mixture, ignoring what the tails add beyond [-1, 1]."""
        means = self.means
        if self.couplings is not None:
            resolved: list[Tensor] = []
            used = 0
            for c in range(means.shape[-2]):
                mean = means[..., c, :]
                for before in range(c):
                    mean = mean + self.couplings[..., used, :] * resolved[before]
                    used += 1
                resolved.append(mean)
            means = torch.stack(resolved, dim=-2)
        return (torch.softmax(self.logits, -1)[..., None, :] * means).sum(-1).clamp(-1, 1)

    def _to_grid(self, value: Tensor) -> Tensor:
        steps = self.bins - 1
        return torch.round((value.clamp(-1, 1) + 1) * (steps / 2)) * (2 / steps) - 1
