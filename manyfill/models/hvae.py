"""The conditional hierarchical VAE: a bound on the likelihood of the hole, and draws from it.

Shapes: B batch, C picture channels, S the model's size, L levels, Z latent channels, N fills.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyfill.distributions import Gaussian
from manyfill.models.bound import Bound, level_kl, nested_losses
from manyfill.models.captions import TextEncoder, Told
from manyfill.models.config import ModelConfig
from manyfill.models.expectation import Expectation
from manyfill.models.features import FeatureExtractor, Features
from manyfill.models.guidance import UNGUIDED, Guidance
from manyfill.models.heads import make_head
from manyfill.models.mixture import Scene
from manyfill.models.pretrained import PretrainedText
from manyfill.models.texture import textures
from manyfill.models.tokens import Vocabulary
from manyfill.models.topdown import Choose, Evidence, Step, TopDown
from manyfill.models.window import Window, windows

CAPTION_PARTS = ("reader.", "topdown.joins.")
"""How the names of the parameters begin that only a model with captions has."""


@dataclass(frozen=True)
class Known:
    """All that fills of a batch share, worked out once: x (B, C, S, S) with 0 in the hole, m (B, 1, S, S), what they
    tell at every size, and the `windows` that have to be worked out (everything without).

    Of fills only the part `kept` (B, 1, S, S) of the hole is of use, all of it without; `guidance` says how closely
    they follow their captions.
    """

    x: Tensor
    m: Tensor
    evidence: Evidence
    missing: dict[int, Tensor]
    windows: dict[int, Window] | None
    guidance: Guidance = UNGUIDED
    kept: Tensor | None = None

    def scene(self, h: Tensor, canvas: Tensor, x: Tensor, m: Tensor) -> Scene:
        """The last state and canvas, of the finest window, with what the window has of pictures and their holes."""
        size = x.shape[-1]
        window = self.windows[size] if self.windows else Window.whole(size)
        return Scene(h, canvas, window.cut(x), window.cut(m), window)

    def only_first(self) -> "Known":
        """The same with pixels to be drawn in the first picture alone."""
        m, kept = (t if t is None else torch.cat([t[:1], torch.zeros_like(t[1:])]) for t in (self.m, self.kept))
        assert m is not None
        return replace(self, m=m, kept=kept)

    def repeat(self, n: int) -> "Known":
        """Each picture n times in a row: B becomes B * n."""

        many = partial(_repeated, n=n)
        missing = {size: many(share) for size, share in self.missing.items()}
        evidence = self.evidence.each(many)
        kept = None if self.kept is None else many(self.kept)
        return Known(many(self.x), many(self.m), evidence, missing, self.windows, self.guidance, kept)


@dataclass(frozen=True)
class Seen:
    """Pictures x (B, C, S, S) seen whole: what their known part tells the prior, and all of them the posterior."""

    x: Tensor
    known: Known
    full: Evidence

    def repeat(self, n: int) -> "Seen":
        """Each picture n times in a row: B becomes B * n."""
        many = partial(_repeated, n=n)
        return Seen(many(self.x), self.known.repeat(n), self.full.each(many))


@dataclass(frozen=True)
class Fills:
    """Drawn fills: x (N, C, S, S), the pixel distribution's mean (N, C, S, S), latents by level (N, Z, size, size)."""

    x: Tensor
    mean: Tensor
    latents: list[Tensor]


class ConditionalHVAE(nn.Module):
    """p(x_H, z | x_K, m, guide, caption) and q(z | x, m, guide, caption) of `docs/design.md`, section 2.

    A model with captions reads them by its `vocabulary`, which is learnt before anything else is.
    """

    temperatures: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.expectation = Expectation(config.channels, config.size, config.kinds) if config.canvas else None
        self.features = FeatureExtractor(config)
        self.posterior_features = FeatureExtractor(config) if config.extractor == "separate" else None
        self.topdown = TopDown(config)
        self.head = make_head(config)
        # Of each level, as calibration found it; saved with the weights it was found for.
        self.register_buffer("temperatures", torch.ones(len(config.levels)))
        self.reader = TextEncoder(config.captions) if config.captions else None
        self.vocabulary: Vocabulary | PretrainedText | None = None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        x: Tensor,
        m: Tensor,
        guide: Tensor | None = None,
        guide_present: Tensor | None = None,
        noise: torch.Generator | Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Bound:
        """One sample of the bound for pictures x (B, C, S, S) in [-1, 1] with holes m (B, 1, S, S) of 0 and 1.

        `guide` (B, C, S, S) counts where `guide_present` (B,) is 1; the posterior's `noise` is as in
        `infer`, the captions' `tokens` as in `tell`.
        """
        told = None if tokens is None else self.tell(tokens)
        return self.bound(self.encode(x, m, guide, guide_present, told), noise)[0]

    def tokens(self, captions: Sequence[str | None]) -> Tensor:
        """Captions, None where there is none, as `tell` takes them."""
        assert self.config.captions is not None, "a model without captions is told none"
        assert self.vocabulary is not None, "a vocabulary comes before any learning"
        return self.vocabulary.read(captions, self.config.captions.length)

    def tell(self, tokens: Tensor) -> dict[int, Told]:
        """What captions, of tokens int64 (B, T) or states (B, T, E), tell the top-down path at each size; nothing where
        all are 0."""
        assert self.reader is not None, "a model without captions is told none"
        states, present = self.reader(tokens)
        return {int(size): join.recall(states, present) for size, join in self.topdown.joins.items()}  # type: ignore[operator]

    def bound(self, seen: Seen, noise: torch.Generator | Tensor | None = None) -> tuple[Bound, list[Step]]:
        """One sample of the bound, and every level's step on the way to it; `noise` as in `infer`."""
        pixels, steps = self.infer(seen, noise)
        dims = seen.known.m.flatten(1).sum(1) * self.config.channels
        return Bound(pixels, level_kl(steps), dims, nested_losses(seen.full.pictures, steps)), steps

    def encode(
        self,
        x: Tensor,
        m: Tensor,
        guide: Tensor | None = None,
        guide_present: Tensor | None = None,
        told: dict[int, Told] | None = None,
        guidance: Guidance = UNGUIDED,
    ) -> Seen:
        """What the known pixels, the whole pictures and their captions tell; x, m and the guide as in `forward`."""
        guide, guide_present = self._guide(x, guide, guide_present)
        blanked, completed = self._completed(x, m, guide, guide_present)
        of_known, of_whole = self._both(completed, x, m, guide, guide_present)
        known = self.known(blanked, completed, m, of_known, told, guidance)
        return Seen(x, known, Evidence(self.topdown.recall_full(of_whole), self._pooled(x)))

    def _both(self, completed: Tensor, x: Tensor, m: Tensor, guide: Tensor, present: Tensor) -> tuple[Features, ...]:
        """Features of the completed and of the whole picture."""
        nothing_missing = torch.zeros_like(m)
        if self.posterior_features is not None:
            whole = self.posterior_features(x, nothing_missing, guide, present)
            return self.features(completed, m, guide, present), whole
        # One batched pass reads both with the same parameters.
        pictures, masks = torch.cat([completed, x]), torch.cat([m, nothing_missing])
        both = self.features(pictures, masks, torch.cat([guide, guide]), torch.cat([present, present]))
        # Not slices: on the way back each would be padded with zeros to the whole, in another memory format.
        halves = {size: h.chunk(2) for size, h in both.items()}
        return tuple({size: h[part] for size, h in halves.items()} for part in (0, 1))

    def infer(self, seen: Seen, noise: torch.Generator | Tensor | None = None) -> tuple[Tensor, list[Step]]:
        """One traversal with the posterior: the pixel term (B,) in nats and every level's step.

        The noise comes from a generator, or is given: normal numbers (B, V) for the V latent values, coarse to fine.
        """
        given: Sequence[Tensor] = ()
        if isinstance(noise, Tensor):
            given = noise.split([level.latent * level.size**2 for level in self.config.levels], 1)

        def from_posterior(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
            assert posterior is not None
            shape = posterior.mean.shape
            if isinstance(noise, Tensor):
                own = given[level].reshape(shape)
            else:
                own = torch.randn(shape, generator=noise, device=seen.x.device)
            return posterior.sample(own.contiguous(memory_format=torch.channels_last))

        known = seen.known
        h, canvas, steps = self.topdown(
            known.evidence, seen.full, known.missing, from_posterior, guidance=known.guidance, windows=known.windows
        )
        return self.head.log_prob(known.scene(h, canvas, seen.x, known.m)), steps

    def encode_known(
        self,
        x: Tensor,
        m: Tensor,
        guide: Tensor | None = None,
        guide_present: Tensor | None = None,
        told: dict[int, Told] | None = None,
        guidance: Guidance = UNGUIDED,
        kept: Tensor | None = None,
    ) -> Known:
        """What the known pixels and captions tell, once per picture; x and m as in `forward`, hole pixels of x are not
        read. Of fills only the part `kept` of the hole is right, if that is given."""
        guide, guide_present = self._guide(x, guide, guide_present)
        blanked, completed = self._completed(x, m, guide, guide_present)
        features = self.features(completed, m, guide, guide_present)
        return self.known(blanked, completed, m, features, told, guidance, kept)

    def fill(self, known: Known, noise: Sequence[torch.Generator], temperature: float = 1.0) -> Fills:
        """Draw len(noise) fills, the same number for each picture, each from a generator of its own.

        `temperature` scales the deviation of every latent, on top of the `temperatures` of the model's calibration.
        """
        assert len(noise) % len(known.x) == 0, f"{len(noise)} fills cannot be shared by {len(known.x)} pictures"
        known = known.repeat(len(noise) // len(known.x))
        scales = [temperature * own for own in self.temperatures.tolist()]

        def from_prior(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
            return prior.sample(_normal(noise, prior.mean), scales[level])

        return self.decode(known, from_prior, noise)

    def decode(self, known: Known, choose: Choose, noise: Sequence[torch.Generator] | Tensor) -> Fills:
        """Traverse with `choose` and draw the pixels of every picture of `known`, one generator each, or from uniform
        numbers (R, K + C) for all hole pixels in the order of reading, kept or not."""
        h, canvas, steps = self.topdown(
            known.evidence, None, known.missing, choose, guidance=known.guidance, windows=known.windows
        )
        m = known.m
        # Only here are pixels drawn without looking at one another.
        if known.kept is not None and isinstance(noise, Tensor) and self.config.head == "mixture":
            m, noise = known.kept, noise[known.kept[m > 0] > 0]
        scene = known.scene(h, canvas, known.x, m)
        x, mean = (scene.window.put(part, known.x) for part in self.head.sample(scene, noise))
        return Fills(x, mean, [step.z for step in steps])

    def _guide(self, x: Tensor, guide: Tensor | None, present: Tensor | None) -> tuple[Tensor, Tensor]:
        if guide is None or not self.config.guide:
            return torch.zeros_like(x), x.new_zeros(len(x))
        return guide, x.new_ones(len(x)) if present is None else present

    def _completed(self, x: Tensor, m: Tensor, guide: Tensor, guide_present: Tensor) -> tuple[Tensor, Tensor]:
        """The picture with its hole blank, and with it as the known pixels lead one to expect; both are the first in a
        model without a canvas."""
        blanked = x * (1 - m)
        return blanked, blanked if self.expectation is None else self.expectation(blanked, m, guide, guide_present)

    def known(
        self,
        blanked: Tensor,
        completed: Tensor,
        m: Tensor,
        features: Features,
        told: dict[int, Told] | None = None,
        guidance: Guidance = UNGUIDED,
        kept: Tensor | None = None,
    ) -> Known:
        """What blanked and completed pictures, their holes, the features of both and captions tell."""
        pictures, missing = self._pooled(completed), self._pooled(m)
        recalled = self.topdown.recall_known(features, textures(pictures, missing) if self.config.canvas else {})
        # In training the holes of a batch are seldom alike, and their place would have to be fetched from the device;
        # in a graph it cannot be: what depends on the values of a hole is no part of one.
        unseen = self.training or torch.compiler.is_exporting()
        where = None if unseen else windows(self.config, m, kept)
        evidence = Evidence(recalled, pictures, told or {})
        return Known(blanked, m, evidence, missing, where, guidance if told else UNGUIDED, kept)

    def _pooled(self, x: Tensor) -> dict[int, Tensor]:
        """Averages of x (B, c, S, S) over the cells of every level's size."""
        pooled, h = {}, x.contiguous(memory_format=torch.channels_last)
        for size in sorted({spec.size for spec in self.config.levels}, reverse=True):
            h = pooled[size] = F.avg_pool2d(h, h.shape[-1] // size)
        return pooled


def _repeated(t: Tensor, n: int) -> Tensor:
    # Of a single picture a view does: nothing is copied.
    return t.expand(n, *t.shape[1:]) if len(t) == 1 else t.repeat_interleave(n, 0)


def _normal(noise: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Standard normal noise of the shape of `like`, one generator per row."""
    drawn = torch.stack([torch.randn(like.shape[1:], generator=g) for g in noise])
    return drawn.contiguous(memory_format=torch.channels_last).to(like.device)
