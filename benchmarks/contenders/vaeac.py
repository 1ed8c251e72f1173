"""An adapter to the code of VAEAC (Ivanov et al. 2019, arXiv:1806.02382): its networks for CelebA, its model and bound,
its optimiser, on pictures and holes from here."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contenders.checkout import modules_of, origin
from contenders.contender import HOLE, Contender, count
from manyfill.errors import ConfigError

EIGHTHS = range(4, 65)  # multiples of an eighth by which all widths are scaled
PUBLISHED_SIDE = 128  # of the pictures that the published networks are for
HALF_BIN = 1 / 255


class VAEAC(Contender):
    """Conditional, with Gaussian pixels; for the bound each is discretised to the 256 values.

    Its own code fills with the batch's statistics in its norms, as in training; usual are the running ones.
    """

    name, task, precision = "vaeac", HOLE, "fp32"
    modes = ("running statistics", "batch statistics")
    repository = "github.com/tigvarts/vaeac"

    def __init__(self, folder: Path, wanted: int, size: int) -> None:
        names = ("VAEAC", "nn_utils", "prob_utils", "celeba_model.model")
        absent = ("torchvision", "mask_generators")  # the holes come from here
        self.core, self.parts, self.probabilities, self.published = modules_of(
            "--vaeac", folder, self.repository, names, absent
        )
        if size not in (PUBLISHED_SIDE // 2, PUBLISHED_SIDE):
            raise ConfigError(f"--vaeac: its networks are for pictures of 64 or 128 pixels, not {size}; leave it out")
        self.origin, self.batch = origin(folder, self.repository), self.published.batch_size
        published = [getattr(self.published, f"{kind}_network") for kind in ("proposal", "prior", "generative")]
        smaller = [self._at_half_size(net) if size < PUBLISHED_SIDE else list(net) for net in published]
        with torch.device("meta"):
            sizes = {eighths: sum(count(self._scaled(net, eighths)) for net in smaller) for eighths in EIGHTHS}
        eighths = min(EIGHTHS, key=lambda eighths: abs(sizes[eighths] - wanted))
        self.origin |= {"layout": "celeba_model", "widths": f"{eighths / 8:g} times"}
        torch.manual_seed(0)
        networks = [self._scaled(network, eighths) for network in smaller]
        self.model = self.core.VAEAC(self.published.reconstruction_log_prob, *networks)
        self.judge = self.core.VAEAC(self._log_mass, *networks)
        # Theirs indexes by bytes, which torch no longer does.
        self.model.make_observed = self.judge.make_observed = lambda x, missing: x * (1 - missing)
        self.optimizer = self.published.optimizer(self.model.parameters())

    def _at_half_size(self, network: nn.Sequential) -> list[nn.Module]:
        """The layers of a network without the second of its sizes, which has the widths of the first."""
        layers = list(network)

        def places(kind: type[nn.Module]) -> list[int]:
            return [place for place, layer in enumerate(layers) if isinstance(layer, kind)]

        halvings, memories = places(nn.AvgPool2d), places(self.parts.MemoryLayer)
        if not halvings:  # the decoder: from the last doubling to the known picture that it ends with
            del layers[places(nn.Upsample)[-1] : memories[-1]]
        else:  # from the first halving to the second, or from what is remembered before them
            first, second = (place - (place - 1 in memories) for place in halvings[:2])
            del layers[first:second]
        return layers

    def _scaled(self, layers: list[nn.Module], eighths: int) -> nn.Sequential:
        return nn.Sequential(*(self._wider(layer, eighths) for layer in layers))

    def _wider(self, layer: nn.Module, eighths: int) -> nn.Module:
        """A fresh layer like the published one, of other widths."""

        def width(channels: int) -> int:
            pictures = channels % 8  # pictures and masks among the channels are as many as they are
            return (channels - pictures) * eighths // 8 + pictures

        if isinstance(layer, nn.Conv2d):
            ends = width(layer.in_channels), width(layer.out_channels)
            return nn.Conv2d(*ends, layer.kernel_size, layer.stride, layer.padding)  # type: ignore[arg-type]
        if isinstance(layer, nn.BatchNorm2d):
            return nn.BatchNorm2d(width(layer.num_features))
        if isinstance(layer, self.parts.ResBlock):
            outer, inner = layer.net[0].num_features, layer.net[2].out_channels
            return self.parts.ResBlock(width(outer), width(inner))
        if isinstance(layer, self.parts.SkipConnection):
            return self.parts.SkipConnection(*(self._wider(part, eighths) for part in layer.inner_net))
        return layer

    @property
    def parameters(self) -> int:
        return count(self.model)

    def step(self, x: Tensor, m: Tensor, progress: float) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        bound = self.model.batch_vlb(x, m.expand_as(x)).mean()
        (-bound / self.published.vlb_scale_factor).backward()
        self.optimizer.step()

    @torch.no_grad()
    def nats(self, x: Tensor, m: Tensor, mode: str) -> float:
        # Of one sample: the bound, without the regularisation that their training adds to it.
        self.judge.train(mode == "batch statistics")
        return -float(self.judge.batch_iwae(x, m.expand_as(x), 1).double().sum())

    @torch.no_grad()
    def fill(self, x: Tensor, m: Tensor, mode: str) -> Tensor:
        self.model.train(mode == "batch statistics")
        params = self.model.generate_samples_params(x, m.expand_as(x), 1)[:, 0]
        # Its own sampler takes each pixel's mean, for looks; CRPS is of the distribution.
        return x * (1 - m) + self._pixels(params).sample().clamp(-1, 1) * m

    def _pixels(self, params: Tensor) -> Any:
        least = self.published.reconstruction_log_prob.min_sigma
        return self.probabilities.normal_parse_params(params, least)

    def _log_mass(self, x: Tensor, params: Tensor, missing: Tensor) -> Tensor:
        pixels = self._pixels(params)
        return (log_mass(x, pixels.mean, pixels.scale) * missing).flatten(1).sum(1).to(x.dtype)


def log_mass(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """log of a Gaussian's mass in the bin of each of the 256 values x in [-1, 1]; the outermost take the tails."""
    mean, deviation = mean.double(), deviation.double()
    x = ((x.double() + 1) * 127.5).round() / 127.5 - 1  # the very middle of the bin
    off = -(x - mean).abs()  # by symmetry on the left of the mean, where tails are told from 0
    upper, lower = (torch.special.log_ndtr((off + side) / deviation) for side in (HALF_BIN, -HALF_BIN))
    inside = upper + torch.log1p(-torch.exp(lower - upper))
    first = torch.special.log_ndtr((x - mean + HALF_BIN) / deviation)
    last = torch.special.log_ndtr((mean - x + HALF_BIN) / deviation)
    return torch.where(x < -1 + HALF_BIN, first, torch.where(x > 1 - HALF_BIN, last, inside))
