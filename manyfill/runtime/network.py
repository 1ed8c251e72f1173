"""The model as a torch network."""

import copy
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from manyfill.caption import Caption, cut_note, tell
from manyfill.checkpoint import digest
from manyfill.device import autocast, leaves_a_core
from manyfill.distributions import Gaussian
from manyfill.models.captions import joined
from manyfill.models.causal import FEWEST_ROWS
from manyfill.models.guidance import Guidance
from manyfill.models.hvae import ConditionalHVAE, Known
from manyfill.rng import TorchDraws
from manyfill.runtime import Masked, Noise, Runtime, Said, Tiles


class Network(Runtime):
    """A network on its device, at that device's precision."""

    draws = TorchDraws()

    def __init__(self, model: ConditionalHVAE) -> None:
        self.model, self.config = model.eval(), model.config
        self.device = next(model.parameters()).device
        self._rounded, self._rounded_from = self.model, list[tuple[int, int]]()

    @property
    def network(self) -> ConditionalHVAE:
        """As `Runtime`."""
        return self.model

    @property
    def temperatures(self) -> list[float]:  # type: ignore[override]
        """As they are now: calibration changes them."""
        return self.model.temperatures.tolist()

    def read(self, caption: Caption) -> Said:
        """As `Runtime`."""
        return Said(tell(self.model, caption), caption.guidance, cut_note(self.model, caption))

    @torch.inference_mode()
    def tell(self, masked: Masked) -> Known:
        """As `Runtime`."""
        told = joined([each.words if each else {} for each in masked.said])
        guidance = Guidance(next((each.guidance for each in masked.said if each), 1.0))
        shown = masked.x, masked.m, masked.guide, masked.kept
        x, m, guide, kept = (None if each is None else self._tensor(each) for each in shown)
        assert x is not None and m is not None
        with autocast(self.device):
            return self.rounded().encode_known(x, m, guide, told=told, guidance=guidance, kept=kept)

    @torch.inference_mode()
    def draw(self, told: Known, copies: int, noise: Noise) -> Tiles:
        """As `Runtime`."""
        count = len(told.x) * copies
        # A matrix times a single vector rounds otherwise, and fills are not to depend on what is drawn with them.
        twice = 2 if count == 1 else 1
        known = told.repeat(copies * twice)
        levels = [self._tensor(np.concatenate([z] * twice)) for z in noise.levels]

        def choose(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
            own = levels[level].contiguous(memory_format=torch.channels_last)
            return own.to(prior.mean) if level < noise.given else prior.sample(own)

        pixels = noise.pixels
        if twice == 2 and (told.m if told.kept is None else told.kept).sum() >= FEWEST_ROWS:
            known = known.only_first()  # the pixels themselves once: they are many vectors
        else:
            pixels = np.concatenate([pixels] * twice)
        with autocast(self.device):
            fills = self.rounded().decode(known, choose, self._tensor(pixels))
        x, mean, *latents = (_array(t)[:count] for t in (fills.x, fills.mean, *fills.latents))
        return Tiles(x, mean, latents)

    def rounded(self) -> ConditionalHVAE:
        """The network with its weights in autocast's precision, if that is on: it would round them anew, one by one, at
        every call, which a single fill is slowed down by."""
        kind = self.device.type
        if not torch.is_autocast_enabled(kind):
            return self.model
        weights = [(p.data_ptr(), p._version) for p in self.model.parameters()]
        if weights != self._rounded_from:
            shared = {id(self.model.vocabulary): self.model.vocabulary}
            rounded = copy.deepcopy(self.model, shared)
            for layer in rounded.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.weight.data = layer.weight.data.to(torch.get_autocast_dtype(kind))
                if isinstance(layer, nn.Conv2d) and layer.bias is not None:  # others are added up before
                    layer.bias.data = layer.bias.data.to(layer.weight.dtype)
            self._rounded, self._rounded_from = rounded, weights
        return self._rounded

    @cached_property
    def digest(self) -> str:
        """Of the config and the weights."""
        return digest(self.model)

    @property
    def spares_a_core(self) -> bool:
        """As `Runtime`."""
        return leaves_a_core(self.device)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def _array(t: Tensor) -> np.ndarray:
    return t.float().cpu().numpy()
