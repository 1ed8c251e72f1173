"""What one may expect of the missing pixels before anything is learnt: the mean of a Gaussian given the known ones.

Photographs are taken for draws of one Gaussian whose discrete cosine coefficients are independent, with a variance of
their own for every frequency and colour axis: the spectrum. Given the known pixels, the mean of the others follows in
closed form (kriging, as geostatistics calls it), and interpolates better than any hand-made rule.

Shapes: B batch, C picture channels, S the model's size.
"""

import math

import torch
from torch import Tensor, nn

ITERATIONS = 20  # more move the mean by less than a grey level, even where one pixel in twenty is known
UNTAUGHT_PICTURES = 100  # what is assumed of photographs weighs as much as having seen so many


def colour_axes(channels: int) -> Tensor:
    """Orthonormal directions (channels, channels) along which photographs vary independently: lightness and two
    opponent colours (Ohta et al. 1980); grey has but one."""
    if channels != 3:
        return torch.eye(channels)
    axes = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]])
    return axes / axes.norm(dim=1, keepdim=True)


def untaught_spectrum(channels: int, size: int) -> Tensor:
    """Variance (C, S, S) by frequency of photographs in general: it falls with the frequency's square (Field 1987), and
    colours have about a tenth and a hundredth of lightness's."""
    frequency = torch.arange(size)
    square = (frequency**2 + frequency[:, None] ** 2).float()
    return torch.tensor([0.08, 0.008, 0.001][:channels])[:, None, None] * size**2 / (0.4 + square)


class Expectation(nn.Module):
    """The Gaussian's mean picture (C, S, S) and its spectrum (C, S, S), both along the colour axes."""

    axes: Tensor
    cosines: Tensor
    mean: Tensor
    spectrum: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        frequency = torch.arange(size)
        cosines = torch.cos(math.pi / size * (frequency + 0.5) * frequency[:, None]) * math.sqrt(2 / size)
        cosines[0] /= math.sqrt(2)
        self.register_buffer("axes", colour_axes(channels), persistent=False)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("mean", torch.zeros(channels, size, size))
        self.register_buffer("spectrum", untaught_spectrum(channels, size))

    @torch.no_grad()
    def fit(self, pictures: Tensor) -> None:
        """Take mean and spectrum from pictures (B, C, S, S) and their mirror images."""
        coloured = self._turned(torch.cat([pictures, pictures.flip(-1)]))
        count, channels, size, _ = coloured.shape
        seen = count + UNTAUGHT_PICTURES
        self.mean.copy_(coloured.sum(0) / seen)
        power = self._transformed(coloured - self.mean).square().sum(0)
        self.spectrum.copy_((power + UNTAUGHT_PICTURES * untaught_spectrum(channels, size).to(power)) / seen)

    def forward(self, x: Tensor, m: Tensor, guide: Tensor, guide_present: Tensor) -> Tensor:
        """The known pixels of x (B, C, S, S), and in the hole m (B, 1, S, S) their mean given those.

        Where `guide_present` (B,) is 1 the guide (B, C, S, S) is taken for the mean picture, so that what is expected
        departs from it only as far as the known pixels beside the hole do.
        """
        # Autocast's bfloat16 would not do: the spectrum spans five orders of magnitude.
        with torch.autocast(x.device.type, enabled=False):
            mean = torch.where(guide_present.view(-1, 1, 1, 1) > 0, self._turned(guide.float()), self.mean)
            hole = m.float()
            known = (self._turned(x.float()) - mean) * (1 - hole)
            departure = self._conditional_mean(known, hole)
            return torch.where(m > 0, self._turned_back(mean + departure).clamp(-1, 1), x)

    def _conditional_mean(self, known: Tensor, hole: Tensor) -> Tensor:
        """u in the hole with (Q (u + known)) = 0 there, Q the precision, by conjugate gradients.

        Preconditioned with the covariance, cut to the hole; Hestenes & Stiefel (1952).
        """
        u = torch.zeros_like(known)
        r = -self._filtered(known, 1 / self.spectrum) * hole
        z = self._filtered(r, self.spectrum) * hole
        p, rz = z, _inner(r, z)
        for _ in range(ITERATIONS):
            curved = self._filtered(p, 1 / self.spectrum) * hole
            along = rz / _inner(p, curved).clamp(min=1e-20)
            u, r = u + along * p, r - along * curved
            z = self._filtered(r, self.spectrum) * hole
            before, rz = rz, _inner(r, z)
            p = z + rz / before.clamp(min=1e-20) * p
        return u

    def _filtered(self, y: Tensor, response: Tensor) -> Tensor:
        """y with each frequency multiplied by `response`: the covariance for the spectrum, the precision for 1 / it."""
        return self.cosines.T @ (self._transformed(y) * response) @ self.cosines

    def _transformed(self, y: Tensor) -> Tensor:
        return self.cosines @ y @ self.cosines.T

    def _turned(self, x: Tensor) -> Tensor:
        """From the picture's channels to the colour axes."""
        return torch.einsum("ac,bchw->bahw", self.axes, x)

    def _turned_back(self, y: Tensor) -> Tensor:
        return torch.einsum("ac,bahw->bchw", self.axes, y)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each map, (B, C, 1, 1)."""
    return (a * b).sum((2, 3), keepdim=True)
