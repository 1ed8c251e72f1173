"""What one may expect of the missing pixels before anything is learnt: the mean of a Gaussian given the known ones.

Photographs are taken for draws of one Gaussian whose discrete cosine coefficients are independent, with a variance of
their own for every frequency and colour axis: the spectrum. Given the known pixels, the mean of the others follows in
closed form (kriging, as geostatistics calls it), and interpolates better than any hand-made rule.

One Gaussian for all photographs knows nothing of the one at hand. So several kinds of picture, each with a spectrum of
its own (calm water runs on sideways, woods upwards), are told apart by the known pixels, and their spectra mixed.

Shapes: B batch, C picture channels, S the model's size, K kinds of picture.
"""

import math

import torch
from torch import Tensor, nn

ITERATIONS = 20  # more move the mean by less than a grey level, even where one pixel in twenty is known
FIRST_ITERATIONS = 6  # enough to tell kinds of picture apart
UNTAUGHT_PICTURES = 100  # what is assumed of photographs weighs as much as having seen so many
COMMON_PICTURES = 30  # the same of the spectrum of all pictures, for the spectrum of one kind
HANDFUL = 10  # pictures that each kind begins with
SORTINGS = 12  # then one picture in a hundred still changes its kind
INDEPENDENCE = 0.01
"""Coefficients of a picture are not independent: so little of their log-likelihood counts as evidence for its kind."""
TINY = 1e-12


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
    """The Gaussian's mean picture (C, S, S) and its spectrum (C, S, S), both along the colour axes, and the spectra of
    `kinds` (K, C, S, S)."""

    axes: Tensor
    cosines: Tensor
    mean: Tensor
    spectrum: Tensor
    kinds: Tensor | None

    def __init__(self, channels: int, size: int, kinds: int = 0) -> None:
        super().__init__()
        frequency = torch.arange(size)
        cosines = torch.cos(math.pi / size * (frequency + 0.5) * frequency[:, None]) * math.sqrt(2 / size)
        cosines[0] /= math.sqrt(2)
        self.register_buffer("axes", colour_axes(channels), persistent=False)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("mean", torch.zeros(channels, size, size))
        self.register_buffer("spectrum", untaught_spectrum(channels, size))
        self.register_buffer("kinds", untaught_spectrum(channels, size).repeat(kinds, 1, 1, 1) if kinds else None)

    @torch.no_grad()
    def fit(self, pictures: Tensor) -> None:
        """Take mean and spectra from pictures (B, C, S, S) and their mirror images."""
        coloured, seen = self._turned(pictures), 2 * len(pictures) + UNTAUGHT_PICTURES
        total = coloured.sum(0)
        self.mean.copy_((total + total.flip(-1)) / seen)
        power = self._transformed(coloured - self.mean).square()  # of a mirror image the same
        untaught = untaught_spectrum(*self.spectrum.shape[:2]).to(power)
        self.spectrum.copy_((2 * power.sum(0) + UNTAUGHT_PICTURES * untaught) / seen)
        if self.kinds is not None:
            self.kinds.copy_(self._sorted(power, self.kinds))

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
            if self.training or torch.compiler.is_exporting():  # which would have to fetch the rows, or could not
                departure = self._departure(known, hole)
            else:
                # Where nothing is known nothing departs: large holes have many such tiles.
                some = (hole < 1).flatten(1).any(1).nonzero()[:, 0]
                departure = torch.zeros_like(known)
                departure[some] = self._departure(known[some], hole[some])
            return torch.where(m > 0, self._turned_back(mean + departure).clamp(-1, 1), x)

    def _departure(self, known: Tensor, hole: Tensor) -> Tensor:
        """How the hole's mean departs from the mean picture, given how the `known` pixels do."""
        departure, spectrum = torch.zeros_like(known), self.spectrum
        if self.kinds is not None:
            departure = self._conditional_mean(known, hole, spectrum, departure, FIRST_ITERATIONS)
            spectrum = self._mixed(known + departure, hole, self.kinds)
        return self._conditional_mean(known, hole, spectrum, departure, ITERATIONS)

    def _sorted(self, power: Tensor, kinds: Tensor) -> Tensor:
        """Spectra that tell pictures apart by their power (B, C, S, S): classification EM (Celeux & Govaert 1992)."""
        many, everything = len(kinds), power.new_ones(len(power))
        kind, contrast = torch.arange(len(power), device=power.device) % many, everything
        kind[HANDFUL * many :] = -1  # each kind begins with a handful of pictures
        for _ in range(SORTINGS):
            alike = [power[kind == k] / contrast[kind == k].view(-1, 1, 1, 1) for k in range(many)]
            common = COMMON_PICTURES * self.spectrum
            kinds = torch.stack([(own.sum(0) + common) / (len(own) + COMMON_PICTURES) for own in alike])
            evidence, contrasts = _evidence(power, everything, kinds)
            kind = evidence.argmax(1)
            contrast = contrasts.gather(1, kind[:, None])[:, 0]
        return kinds

    def _mixed(self, whole: Tensor, hole: Tensor, kinds: Tensor) -> Tensor:
        """The spectrum (B, C, S, S), up to a factor, of pictures whose holes are filled by a first guess."""
        power = self._transformed(whole).square()
        evidence, contrast = _evidence(power, 1 - hole.mean((1, 2, 3)), kinds)
        weights = torch.softmax(INDEPENDENCE * evidence, 1) * contrast
        weights = weights / weights.sum(1, keepdim=True)
        return (weights @ kinds.flatten(1)).view_as(power)

    def _conditional_mean(
        self, known: Tensor, hole: Tensor, spectrum: Tensor, start: Tensor, iterations: int
    ) -> Tensor:
        """u in the hole with (Q (u + known)) = 0 there, Q the precision, by conjugate gradients from a `start`.

        Preconditioned with the covariance, cut to the hole; Hestenes & Stiefel (1952).
        """

        def listed(y: Tensor) -> Tensor:
            return y.expand_as(known).flatten(0, 1)

        # One map after the other, so that every product is a single call: calls take most of a single picture's time.
        hole, spectrum, u = listed(hole), listed(spectrum), listed(start)
        there = self.cosines.expand(u.shape[0], -1, -1)  # not len(u), which is a constant to a graph
        back, precision = there.mT, 1 / spectrum

        def filtered(y: Tensor, response: Tensor) -> Tensor:
            """The hole of y with each frequency multiplied by `response`: the spectrum for the covariance, the
            precision for its inverse."""
            return back.bmm(there.bmm(y).bmm(back) * response).bmm(there) * hole

        r = -filtered(listed(known) + u, precision)
        p, before = torch.zeros_like(r), r.new_ones(())
        for _ in range(iterations):
            z = filtered(r, spectrum)
            rz = _inner(r, z)
            p, before = torch.addcmul(z, rz / before.clamp(min=1e-20), p), rz
            curved = filtered(p, precision)
            along = rz / _inner(p, curved).clamp(min=1e-20)
            u, r = torch.addcmul(u, along, p), torch.addcmul(r, along, curved, value=-1)
        return u.view_as(known)

    def _transformed(self, y: Tensor) -> Tensor:
        return self.cosines @ y @ self.cosines.T

    def _turned(self, x: Tensor) -> Tensor:
        """From the picture's channels to the colour axes."""
        return torch.einsum("ac,bchw->bahw", self.axes, x)

    def _turned_back(self, y: Tensor) -> Tensor:
        return torch.einsum("ac,bahw->bchw", self.axes, y)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each map (B * C, 1, 1)."""
    return (a * b).sum((1, 2), keepdim=True)


def _evidence(power: Tensor, share: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """The log-likelihood by kind (B, K) of pictures of which a `share` (B,) is known, and the contrast (B, K), a factor
    of the spectrum, that suits each kind best.

    What is unknown adds nothing to the `power` (B, C, S, S) of a smooth guess, and takes its part of the determinant.
    """
    spectra = kinds.flatten(1)
    values = (share * spectra.shape[1]).clamp(min=1)[:, None]
    contrast = power.flatten(1) @ (1 / spectra).T / values + TINY
    return -0.5 * (values * contrast.log() + share[:, None] * spectra.log().sum(1)), contrast
