"""From a global batch to its gradient and new weights: by several ranks, in micro-batches, within limited memory."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from manyfill.data import Batch
from manyfill.device import autocast
from manyfill.models.blocks import ResidualBlock
from manyfill.models.bound import Bound
from manyfill.models.hvae import ConditionalHVAE
from manyfill.models.mixture import MixtureHead
from manyfill.models.topdown import LatentBlock
from manyfill.train.batchnorm import synchronise
from manyfill.train.distributed import Ranks, share
from manyfill.train.noise import dropped, posterior_noise
from manyfill.train.optim import learning_rate, spectral_norms
from manyfill.train.settings import Settings
from manyfill.train.state import RunState
from manyfill.train.tally import Tally

RECOMPUTED: dict[type[nn.Module], Sequence[str]] = {
    ResidualBlock: ["forward"],
    LatentBlock: ["prior", "posterior", "stroke"],
    MixtureHead: ["log_prob"],
}
"""Methods that `train.recompute` calls a second time on the way back, by kind of module."""


class Engine:
    """A model wrapped to be trained; its own parameters, buffers and names stay as they are."""

    def __init__(self, model: ConditionalHVAE, settings: Settings, ranks: Ranks, device: torch.device) -> None:
        self.model, self.settings, self.ranks, self.device = model, settings, ranks, device
        self.micro_batch = share(settings.train.batch_size, settings.train.accumulate, ranks.world)
        self.nested_weight = settings.train.nested_weight if settings.model.canvas else 0.0
        if settings.train.recompute:
            _recompute(model)
        self.ddp: DistributedDataParallel | None = None
        if not ranks.alone:
            synchronise(model)
            with warnings.catch_warnings():
                # Renamed forward_sync_buffers in later versions. Every rank's buffers are the same by themselves.
                warnings.simplefilter("ignore", FutureWarning)
                self.ddp = DistributedDataParallel(model, broadcast_buffers=False)
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of 1x1 kernels, where it costs nothing
        self.settled = ranks.alone

    def update(self, state: RunState, batch: Batch, progress: float, kl_weight: float) -> float:
        """One step of the state's model, at this share of the run, from one batch; returns the gradient's norm.

        A step that the guard refuses leaves no trace.
        """
        assert state.model is self.model
        settings, buffers = self.settings.train, buffers_of(state.model)
        loss, tally = self.gradient(batch, state.step, kl_weight)
        norm = float(nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_norm))
        norm, _ = self.ranks.agree(norm, False)  # so that the guards of all ranks decide the same
        if state.guard.accepts(norm, loss):
            for group in state.optimizer.param_groups:
                group["lr"] = group["scale"] * state.rate * learning_rate(settings, state.step, progress)
            state.optimizer.step()
            state.ema.update_parameters(state.model)
            state.tally.merge(tally)
        else:
            # The forward pass has already put a bad batch into batch norm's running statistics.
            restore(state.model, buffers)
        state.step += 1
        return norm

    def gradient(self, batch: Batch, step: int, kl_weight: float) -> tuple[float, Tally]:
        """Leave the gradient of the global batch, of which `batch` is this rank's share, with the model's parameters.

        Returns the loss and the tally of the global batch.
        """
        batch = batch.to(self.device)
        if not self.settled:
            # DDP groups the gradients anew after its first backward pass, by the order in which they came, and other
            # groups add up in another order. That pass is thrown away, or a resumed run would differ in the last bit.
            self.settled = True
            buffers = buffers_of(self.model)
            self._gradient(batch, step, kl_weight)
            restore(self.model, buffers)
        return self._gradient(batch, step, kl_weight)

    def _gradient(self, batch: Batch, step: int, kl_weight: float) -> tuple[float, Tally]:
        settings, ranks, device = self.settings, self.ranks, self.device
        train = settings.train
        tally, loss = Tally(len(settings.model.levels), device), torch.zeros((), device=device)
        # The loss is a quotient of sums over the global batch, of which each rank and micro-batch knows a part.
        dims = ranks.sum(batch.m.sum() * settings.model.channels)
        first = ranks.rank * len(batch.x)
        self.model.zero_grad()
        for start in range(0, len(batch.x), self.micro_batch):
            stop = start + self.micro_batch
            rows, places = slice(start, stop), range(first + start, first + stop)
            noise = posterior_noise(settings.model, settings.seed, "latents", step, places, device)
            tokens = self.model.tokens(batch.told[rows]).to(device) if settings.model.captions else None
            with self._in_step(last=stop == len(batch.x)), dropped(settings, step, places, device):
                with autocast(device, train.precision):
                    bound = (self.ddp or self.model)(
                        batch.x[rows], batch.m[rows], batch.guide[rows], batch.guide_present[rows], noise, tokens
                    )
                part = objective(bound, kl_weight, self.nested_weight, train.batch_size, dims, train.free_bits)
                (part * ranks.world).backward()  # of the ranks' gradients DDP takes the mean
            loss += part.detach()
            tally.add(bound)
        if train.spectral_weight:
            self._regularise(train.spectral_weight)
        ranks.sum(tally.sums)
        return ranks.sum(loss).item(), tally

    def _regularise(self, weight: float) -> None:
        """Add the gradient of the spectral norms, the same at every rank."""
        parameters = [p for p in self.model.parameters() if p.ndim > 1]
        # By hand: a backward pass would have DDP take it for the gradient of a batch.
        found = torch.autograd.grad(weight * spectral_norms(self.model).sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, found, strict=True):
            if gradient is not None and parameter.grad is not None:
                parameter.grad += gradient

    @contextmanager
    def _in_step(self, last: bool) -> Iterator[None]:
        """The gradients of all but the last micro-batch of a step stay with their rank."""
        if last or self.ddp is None:
            yield
            return
        with self.ddp.no_sync():
            yield


def objective(
    bound: Bound, kl_weight: float, nested_weight: float, pictures: int, dims: Tensor, free_bits: float = 0.0
) -> Tensor:
    """What a step makes smaller: nats per hole value, with the KL and the truncated hierarchies weighed.

    `pictures` and `dims` (hole values) count those of the whole batch, of which `bound` may be a part. A level's KL
    counts where it exceeds the `free_bits` per hole value, picture by picture (Kingma et al. 2016 average over a batch
    first).
    """
    kl = torch.maximum(bound.kl, math.log(2) * free_bits * bound.dims[:, None]) if free_bits else bound.kl
    likelihood = (bound.pixels - kl_weight * kl.sum(1)).sum() / dims.clamp(min=1)
    return nested_weight * bound.nested.sum() / pictures - likelihood


def buffers_of(model: nn.Module) -> list[Tensor]:
    """A copy of what a forward pass may change, such as batch norm's statistics; `restore` puts it back."""
    return [buffer.clone() for buffer in model.buffers()]


def restore(model: nn.Module, buffers: list[Tensor]) -> None:
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(before)


def _recompute(model: ConditionalHVAE) -> None:
    """Keep no activation within a block or a distribution, but work it out again on the way back."""
    for part in model.modules():
        for kind, names in RECOMPUTED.items():
            for name in names if isinstance(part, kind) else ():
                setattr(part, name, partial(checkpoint, getattr(part, name), use_reentrant=False))
