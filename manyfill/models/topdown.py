"""The top-down path: latent blocks with a conditional prior and a posterior, border connections, the one traversal.

Shapes: B batch, C channels, H W size of a level, Z latent channels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyfill.distributions import Gaussian
from manyfill.models.blocks import Upsample, activation, blocks, conv, kernel_at
from manyfill.models.captions import Told, joins
from manyfill.models.config import LevelSpec, ModelConfig
from manyfill.models.expectation import colour_axes
from manyfill.models.features import Features
from manyfill.models.guidance import UNGUIDED, Guidance
from manyfill.models.latent_prior import AutoregressivePrior, IndependentPrior
from manyfill.models.window import Window

Choose = Callable[[int, Gaussian, Gaussian | None], Tensor]
"""`choose(level, prior, posterior) -> z` decides which latent the traversal goes on with; levels count from 0."""

UNIT = math.log(math.e - 1)  # softplus(UNIT) = 1
# Finer than the picture's own noise is of no use, and a prior a thousandth wide makes one wrong guess cost a million
# nats, whose gradient then wrecks the weights.
SMALLEST_STD = 0.01
LARGEST_MEAN, LARGEST_RAW = 8.0, 4.0
# Hardly any picture reaches these. Without them a rare one (dark, or vivid in colour, with little known) has each level
# hand the next a larger state and canvas, and a bound that is infinite, from which nothing is ever learnt.
LARGEST_STATE, LARGEST_CANVAS = 16.0, 1.5
LARGEST_OFFSET = 16.0  # of a posterior, in deviations of its prior
CODE_GAIN, SKETCH_GAIN = 4.0, 0.2
# Of lightness and two opponent colours, whose errors are about a quarter and an eighth of lightness's in photographs.
# Half of what would make them equal, so that pictures in false colours fare well too.
COLOUR_GAINS = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Step:
    """What one level saw and chose: `prior` is of each latent given those of z before it, `mask` (B, 1, H, W) is 1
    where its latents live, `canvas` (B, C, H, W) is the picture as drawn after it (all 0 without a canvas)."""

    prior: Gaussian
    posterior: Gaussian | None
    z: Tensor
    mask: Tensor
    canvas: Tensor


class Border(nn.Module):
    """Joins the known picture's features and texture, and the canvas so far, to the top-down state on entering a size.

    One convolution of state, features, canvas and texture, side by side; since it is linear, what features and texture
    add to it is worked out once for all fills of a picture (`recall`).
    """

    def __init__(self, config: ModelConfig, width: int, feature_width: int) -> None:
        super().__init__()
        self.combine, self.dropout = config.border == "conv", config.border_dropout
        drawn = config.channels if config.canvas else 0
        self.parts = [width if self.combine else 0, feature_width, drawn, drawn]
        extra = sum(self.parts)
        self.project = conv(extra, width, padding=0) if self.combine else conv(extra, width, 1, gain=0.7)

    def recall(self, features: Tensor, texture: Tensor | None) -> Tensor:
        """What the known picture's features and texture (B, C, H, W) add to the state (B, width, H, W)."""
        h = self._convolved(features, 1, self.project.bias)
        return h if texture is None else h + self._convolved(texture, 3)

    def forward(self, h: Tensor, recalled: Tensor, canvas: Tensor) -> Tensor:
        if self.training and self.dropout:
            recalled = recalled * F.dropout(recalled.new_ones(len(recalled), 1, 1, 1), self.dropout)
        h = (self._convolved(h, 0) if self.combine else h) + recalled
        return h + self._convolved(canvas, 2) if self.parts[2] else h

    def _convolved(self, h: Tensor, part: int, bias: Tensor | None = None) -> Tensor:
        # A valid convolution sees no zeros at the picture's edge: the edge is repeated instead.
        h = F.pad(h, (1, 1, 1, 1), mode="replicate") if self.combine else h
        return F.conv2d(h, self.project.weight.split(self.parts, 1)[part], bias)


class LatentBlock(nn.Module):
    """One level: prior and posterior over z from the state so far, z fed back into the state, then refinement.

    The canvas is the picture as far as the levels above have drawn it. The posterior is told the error that is
    left, so a level starts out coding that error, as in a Laplacian pyramid, and coarse levels carry content from
    the first step on.
    """

    def __init__(self, config: ModelConfig, spec: LevelSpec, feature_width: int, gain: float) -> None:
        super().__init__()
        self.residual = config.posterior == "residual"
        self.bounded, self.softplus = config.bounded, config.scale == "softplus"
        hidden = max(spec.width // 2, spec.latent)
        self.parts = [feature_width, config.channels if config.canvas else 0]
        kernel = kernel_at(spec.size)
        self.prepare = blocks(config, spec.lead, spec.width, spec.size, gain)
        self.state = conv(spec.width, hidden, kernel)
        self.evidence = conv(sum(self.parts), hidden, kernel)
        self.prior_out = nn.Sequential(activation(config), conv(hidden, 2 * spec.latent, 1, gain=0.1))
        self.posterior_out = nn.Sequential(activation(config), conv(hidden, 2 * spec.latent, 1, gain=0.1))
        self.chain = AutoregressivePrior(spec.size, spec.latent, hidden) if spec.autoregressive else IndependentPrior()
        self.feed_back = conv(spec.latent, spec.width, 1, gain=gain)
        self.refine = blocks(config, spec.depth, spec.width, spec.size, gain)
        self.canvas = config.canvas
        if config.canvas:
            self.code = conv(config.channels, spec.latent, 1)
            self.sketch = conv(spec.latent, config.channels, 1)
            self.paint = conv(spec.width, config.channels, 1, gain=0.1)
            axes = colour_axes(config.channels) * torch.tensor(COLOUR_GAINS[: config.channels])[:, None]
            axes = axes[: spec.latent, :, None, None]
            back = (axes / axes.square().sum(1, keepdim=True)).transpose(0, 1)
            with torch.no_grad():
                # The error's lightness and colours each go into one latent map, amplified above the noise, and back.
                # A prior with a deviation for each map cannot say that red, green and blue err together, as they nearly
                # always do: along them fills would be coloured smoke.
                for layer in (self.code, self.sketch):
                    nn.init.zeros_(layer.weight)
                self.code.weight[: len(axes)] = CODE_GAIN * axes
                self.sketch.weight[:, : len(axes)] = SKETCH_GAIN * back

    def prior(self, state: Tensor) -> Gaussian:
        """From `state`, the convolved top-down state (B, hidden, H, W), which prior and posterior share."""
        return self._gaussian(*_halves(self.prior_out(state)))

    def recall(self, features: Tensor) -> Tensor:
        """What the whole picture's features (B, C, H, W) tell the posterior (B, hidden, H, W)."""
        return self._told(features, 0, self.evidence.bias)

    def posterior(self, state: Tensor, recalled: Tensor, error: Tensor, prior: Gaussian) -> Gaussian:
        """As an offset from the prior (Vahdat & Kautz 2020, section 3.2), or on its own."""
        seen = state + recalled
        if self.canvas:
            seen = seen + self._told(error, 1)
        mean, raw = _halves(self.posterior_out(seen))
        if self.canvas:
            mean = mean + self.code(error).float()
        if not self.residual:
            return self._gaussian(mean, raw)
        # What is seen can only narrow what is expected.
        own = self._gaussian(mean, raw.clamp(max=0) if self.bounded else raw)
        farthest = LARGEST_OFFSET * prior.std
        offset = own.mean.clamp(-farthest, farthest) if self.bounded else own.mean
        return Gaussian(prior.mean + offset, prior.std * own.std)

    def _told(self, evidence: Tensor, part: int, bias: Tensor | None = None) -> Tensor:
        # One convolution of features and error, side by side, whose part for the features all samples share.
        weight = self.evidence.weight.split(self.parts, 1)[part]
        return F.conv2d(evidence, weight, bias, padding=self.evidence.padding)

    def _gaussian(self, mean: Tensor, raw: Tensor) -> Gaussian:
        """Of a deviation that is 1 where `raw` is 0."""
        if self.bounded:
            # Nearly the mean itself where it is small. Without a bound, each level can hand the next a larger state
            # than it got, and a rare picture sends the KL of the fine levels to 1e20.
            mean, raw = LARGEST_MEAN * torch.tanh(mean / LARGEST_MEAN), raw.clamp(max=LARGEST_RAW)
        return Gaussian(mean, F.softplus(raw + UNIT) + SMALLEST_STD if self.softplus else raw.exp())

    def feed(self, h: Tensor, z: Tensor) -> Tensor:
        """The state after z."""
        h = self.refine(h + self.feed_back(z))
        return h.clamp(-LARGEST_STATE, LARGEST_STATE) if self.bounded else h

    def stroke(self, h: Tensor, z: Tensor) -> Tensor:
        """What this level adds to the canvas, given the state after z."""
        return (self.paint(h) + self.sketch(z)).float()


def _halves(h: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second half of the channels, in float32."""
    # Each laid out by itself: every operation on interleaved halves would take several times as long.
    first, second = (half.contiguous(memory_format=torch.channels_last).float() for half in h.chunk(2, 1))
    return first, second


@dataclass(frozen=True)
class Evidence:
    """What is told of a picture, worked out once for all samples: what its features add, and itself at every size.

    On the known side, where the hole is as expected, features add to the state on entering each size (by size); on the
    full side they add to what each level's posterior sees (by level). Captions tell more, by size, where there are any.
    """

    recalled: dict[int, Tensor]
    pictures: dict[int, Tensor]
    told: dict[int, Told] = field(default_factory=dict)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Evidence":
        """The same with every tensor changed."""
        recalled, pictures = ({size: change(t) for size, t in maps.items()} for maps in (self.recalled, self.pictures))
        return Evidence(recalled, pictures, {size: told.each(change) for size, told in self.told.items()})


class TopDown(nn.Module):
    """All levels from coarse to fine; the traversal is the only one there is."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.specs, self.channels, self.canvas = config.levels, config.channels, config.canvas
        self.bounded = config.bounded
        widths = {stage.size: stage.width for stage in config.stages}
        gain = max(sum(level.lead + level.depth for level in config.levels), 1) ** -0.5
        first = config.levels[0]
        self.start = nn.Parameter(torch.zeros(1, first.width, first.size, first.size))
        self.ups, self.borders, self.blocks = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleList()
        self.drafts = nn.ModuleDict()
        for before, spec in zip((None, *config.levels[:-1]), config.levels, strict=True):
            if before is None or before.size != spec.size:
                if before is None or config.border != "none":  # without any, the known picture still enters at the top
                    self.borders[str(spec.size)] = Border(config, spec.width, widths[spec.size])
                if config.canvas:
                    self.drafts[str(spec.size)] = conv(spec.width, config.channels, kernel_at(spec.size, 5), gain=0.0)
                if before is not None:
                    self.ups[str(spec.size)] = Upsample(config, before.width, spec.width, spec.size // before.size)
            self.blocks.append(LatentBlock(config, spec, widths[spec.size], gain))
        self.joins = joins(config)

    def recall_known(self, features: Features, textures: dict[int, Tensor]) -> dict[int, Tensor]:
        """What the known picture's features and textures add to the state on entering each size."""
        return {
            size: self.borders[str(size)].recall(features[size], textures.get(size))  # type: ignore[operator]
            for size in map(int, self.borders)
        }

    def recall_full(self, features: Features) -> dict[int, Tensor]:
        """What the whole picture's features tell the posterior of each level."""
        levels = enumerate(zip(self.specs, self.blocks, strict=True))
        return {level: block.recall(features[spec.size]) for level, (spec, block) in levels}  # type: ignore[operator]

    def forward(
        self,
        known: Evidence,
        full: Evidence | None,
        missing: dict[int, Tensor],
        choose: Choose,
        guidance: Guidance = UNGUIDED,
        windows: dict[int, Window] | None = None,
    ) -> tuple[Tensor, Tensor, list[Step]]:
        """The final state (B, width, h, w) and canvas (B, C, h, w) in the finest window, and every level's step.

        `known` and `full` tell of the known pixels and of the whole picture, `missing` (B, 1, size, size) of the share
        of each cell that lies in the hole. Latents live wherever that is not 0. Where there are `windows`, only they
        are worked out; around them steps are 0, and priors and posteriors standard normal.
        """
        both, mean = guidance.both, guidance.mean
        batch = next(iter(missing.values())).shape[0]
        h = both(self.start.expand(batch, -1, -1, -1))
        canvas = departure = self.start.new_zeros(batch, self.channels, 1, 1)
        window = Window.whole(1)
        steps: list[Step] = []
        for level, (spec, latent) in enumerate(zip(self.specs, self.blocks, strict=True)):
            assert isinstance(latent, LatentBlock)
            size, everywhere = spec.size, (missing[spec.size] > 0).float()
            if not steps or size != window.size:
                before, window = window, windows[size] if windows else Window.whole(size)
                hole, picture = window.cut(everywhere), window.cut(known.pictures[size])
                h = window.cut(self.ups[str(size)](h), before) if steps else h
                canvas = torch.zeros_like(picture)
                if self.canvas:
                    # What the known pixels lead one to expect, and in the missing part of every cell also what the
                    # coarser levels drew beyond that.
                    enlarged = F.interpolate(departure, scale_factor=size // before.size, mode="bilinear")
                    canvas = picture + window.cut(missing[size]) * window.cut(enlarged, before)
                if size in known.recalled:
                    h = self.borders[str(size)](h, both(window.cut(known.recalled[size])), both(canvas))
                if size in known.told:
                    # Where positions attend to tokens the window is whole; all else is alike everywhere.
                    h = guidance.told(h, partial(self.joins[str(size)], told=known.told[size]))
                h = latent.prepare(h)
                if self.canvas:
                    # What the known side lets one expect is drawn before any latent codes the error that is left.
                    # The KL of that code is then what teaches the prior side to expect the right thing.
                    canvas = self._limited(canvas + mean(self.drafts[str(size)](h)).float() * hole)
            else:
                h = latent.prepare(h)
            state = latent.state(h)
            own, posterior = latent.prior(state), None
            prior = guidance.gaussian(own)
            if full is not None:
                error = (window.cut(full.pictures[size]) - canvas) * hole
                found = latent.posterior(state, both(window.cut(full.recalled[level])), both(error), own)
                posterior = _pasted(guidance.gaussian(found), window)
            prior = _pasted(latent.chain(prior, state, hole), window)
            z = choose(level, prior, posterior) * everywhere
            fed = both(window.cut(z))
            h = latent.feed(h, fed)
            if self.canvas:
                canvas = self._limited(canvas + mean(latent.stroke(h, fed)) * hole)
                departure = canvas.clamp(-1, 1) - picture
            steps.append(Step(prior.given(z), posterior, z, everywhere, window.paste(canvas)))
        return guidance.with_caption(h), canvas, steps

    def _limited(self, canvas: Tensor) -> Tensor:
        return canvas.clamp(-LARGEST_CANVAS, LARGEST_CANVAS) if self.bounded else canvas


def _pasted(p: Gaussian, window: Window) -> Gaussian:
    return p if window.is_whole else Gaussian(window.paste(p.mean), window.paste(p.std, 1.0))
