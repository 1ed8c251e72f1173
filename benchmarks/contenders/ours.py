"""manyfill by its own training step, settings and precision."""

import torch
from torch import Tensor

from contenders.contender import HOLE, WHOLE, Contender, count
from manyfill.data import Batch
from manyfill.device import autocast, has_fast_bfloat16
from manyfill.models.bound import Bound
from manyfill.models.hvae import ConditionalHVAE
from manyfill.rng import generator
from manyfill.train.distributed import ALONE
from manyfill.train.engine import Engine
from manyfill.train.settings import load
from manyfill.train.setup import initial_state

DEVICE = torch.device("cpu")


class Manyfill(Contender):
    """A preset from scratch, with the one kind of hole of its task and no guide."""

    modes = ("averaged weights",)

    def __init__(self, task: str = HOLE, preset: str = "base64", precision: str = "auto") -> None:
        self.origin = {"repository": "manyfill"}
        self.task, self.name = task, "manyfill" if task == HOLE else f"manyfill, {task}"
        kind = "all" if task == WHOLE else "centre"
        chosen = [f"data.masks={{{kind}=1.0}}", f"train.precision={precision}"]
        self.settings = load(["-"], preset=preset, assignments=chosen)  # which pictures, is not its business here
        self.batch = self.settings.train.batch_size
        self.precision = "bf16" if precision == "auto" and has_fast_bfloat16(DEVICE) else "fp32"
        self.state = initial_state(self.settings, DEVICE)
        self.engine = Engine(self.state.model, self.settings, ALONE, DEVICE)
        self.drawn = 0

    @property
    def parameters(self) -> int:
        return count(self.state.model)

    @property
    def averaged(self) -> ConditionalHVAE:
        model = self.state.ema.module
        assert isinstance(model, ConditionalHVAE)
        return model.eval()

    def prepare(self, pictures: Tensor) -> None:
        for model in (self.state.model, self.averaged):
            if model.expectation is not None:
                model.expectation.fit(pictures)

    def step(self, x: Tensor, m: Tensor, progress: float) -> None:
        n = len(x)
        if n != self.engine.micro_batch:  # an engine is made for batches of one size
            train = self.settings.train.model_copy(update={"batch_size": n})
            self.settings = self.settings.model_copy(update={"train": train})
            self.engine = Engine(self.state.model, self.settings, ALONE, DEVICE)
        batch = Batch(x, m, torch.zeros_like(x), torch.zeros(n), [[]] * n, [""] * n, told=[None] * n)
        self.engine.update(self.state, batch, progress, kl_weight=1.0)
        self.refused = self.state.guard.skipped

    @torch.inference_mode()
    def nats(self, x: Tensor, m: Tensor, mode: str) -> float:
        with autocast(DEVICE, self.settings.train.precision):
            bound: Bound = self.averaged(x, m, noise=self._generator("bound"))
        return -float(bound.total.double().sum())

    @torch.inference_mode()
    def fill(self, x: Tensor, m: Tensor, mode: str) -> Tensor:
        noise = [self._generator("fill") for _ in x]
        with autocast(DEVICE, self.settings.train.precision):
            model = self.averaged
            return model.fill(model.encode_known(x, m), noise).x.float()

    def _generator(self, purpose: str) -> torch.Generator:
        self.drawn += 1
        return generator(0, purpose, self.drawn)
