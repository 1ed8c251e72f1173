"""Priors over a level's latents: a Gaussian for each, or an autoregressive network around it (PixelVAE).

p(z_l[i] | z_l[<i], z_<l, x_K), i in the order of a PixelCNN over the level's hole positions: Gulrajani et al. (2016),
arXiv:1611.05013.

Shapes: B batch, Z latent channels, S size of the level, R hole positions of the whole batch.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyfill.distributions import Gaussian
from manyfill.models.causal import CausalNetwork, Rows, skewed

WIDTH, DEPTH = 32, 2
MOST_DEVIATIONS, LARGEST_LOG = 4.0, 2.0  # how far what was drawn before may move a latent's mean, and its log_std


class IndependentPrior(nn.Module):
    """A level's Gaussian as it is."""

    def forward(self, prior: Gaussian, state: Tensor, hole: Tensor) -> Gaussian:
        return prior


class AutoregressivePrior(nn.Module):
    """The network that chains a level's Gaussian over its positions."""

    def __init__(self, size: int, latent: int, context: int) -> None:
        super().__init__()
        self.network = CausalNetwork(skewed(size), 2 * latent, context, 2 * latent, WIDTH, DEPTH)

    def forward(self, prior: Gaussian, state: Tensor, hole: Tensor) -> "AutoregressiveGaussian":
        """From the level's `prior` and `state` (B, hidden, S, S), over the positions of `hole` (B, 1, S, S)."""
        rows = self.network.rows(hole)
        return AutoregressiveGaussian(prior.mean, prior.std, self.network, rows, F.silu(rows.take(state)))


@dataclass(frozen=True)
class AutoregressiveGaussian(Gaussian):
    """Latents of which each position's are normal given those of earlier positions.

    mean and std (B, Z, S, S) are what they are before any of them is seen, from which the posterior's offset counts
    too; context (R, hidden) is what else the network is told.
    """

    network: CausalNetwork
    rows: Rows
    context: Tensor

    def given(self, z: Tensor) -> Gaussian:
        """What every position of z (B, Z, S, S) is drawn from, given those of z before it.

        Since the posterior's positions are independent, KL(q || p) is the mean over z ~ q of the sum over positions of
        KL(q_i || p_i(. | z_<i)): two Gaussians each, so it is worked out and not sampled, with far less variance than
        log q - log p of the draw.
        """
        mean, std = self.rows.take(self.mean), self.rows.take(self.std)
        found = self._normal(mean, std, self.network(self.rows, _told(self.rows.take(z), mean), self.context))
        return Gaussian(self.rows.put(found.mean, self.mean), self.rows.put(found.std, self.std))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of every element (B, Z, S, S) given those before it."""
        return self.given(z).log_prob(z)

    def sample(self, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """A draw from standard normal `noise` (B, Z, S, S); `temperature` scales each position's deviation.

        0 outside the hole.
        """
        mean, std, own = (self.rows.take(t) for t in (self.mean, self.std, temperature * noise))
        z = torch.zeros_like(own)

        def choose(now: slice, outputs: Tensor) -> Tensor:
            z[now] = self._normal(mean[now], std[now], outputs).sample(own[now])
            return _told(z[now], mean[now])

        self.network.draw(self.rows, self.context, choose, f"latents {noise.shape[-1]}x{noise.shape[-1]}")
        return self.rows.put(z, torch.zeros_like(noise))

    def _normal(self, mean: Tensor, std: Tensor, outputs: Tensor) -> Gaussian:
        shift, log_scale = outputs.chunk(2, 1)
        scale = torch.exp(_bounded(log_scale, LARGEST_LOG))
        return Gaussian(mean + std * _bounded(shift, MOST_DEVIATIONS), std * scale)


def _told(z: Tensor, mean: Tensor) -> Tensor:
    """What the network is told of latents (R, Z): themselves, and how they departed from what was expected."""
    return torch.cat([z, z - mean], 1)


def _bounded(x: Tensor, most: float) -> Tensor:
    """Nearly x where it is small, so that a rare picture cannot drive prior and posterior far apart."""
    return most * torch.tanh(x / most)
