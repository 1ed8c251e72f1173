"""Batch norm over the pictures of all ranks, on any device; torch's own is for GPUs alone.

Shapes: B pictures of a rank, C channels, H W size.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """The sum over ranks; since every rank's loss depends on it, so is its gradient."""

    @staticmethod
    def forward(_context: object, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: object, gradient: Tensor) -> Tensor:
        return _Sum.forward(None, gradient.contiguous())


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the pictures of all ranks, on any device (torch's own is for GPUs alone)."""

    def forward(self, h: Tensor) -> Tensor:
        if not self.training:
            return super().forward(h)
        var, mean = torch.var_mean(h.float(), (0, 2, 3), correction=0)
        # In float64, so that the second moment less the mean's square is no difference of large numbers.
        var, mean = var.double(), mean.double()
        count = h.new_full((1,), h.numel() // h.shape[1], dtype=torch.float64)
        first, second, total = _Sum.apply(torch.cat([mean * count, (var + mean**2) * count, count])).split(
            [len(mean), len(mean), 1]
        )
        mean, var = first / total, second / total - (first / total) ** 2
        self._remember(mean.detach(), var.detach() * total / (total - 1))
        scale = self.weight * torch.rsqrt(var.float() + self.eps)
        shift = self.bias - mean.float() * scale
        return torch.addcmul(shift.view(1, -1, 1, 1), h.float(), scale.view(1, -1, 1, 1)).to(h.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(var.to(self.running_var), self.momentum)


def synchronise(model: nn.Module) -> None:
    """Put synchronised batch norms, with the same parameters and statistics, in the place of plain ones."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                twin = SynchronisedBatchNorm(child.num_features, child.eps, child.momentum)
                for kind in ("_parameters", "_buffers"):
                    getattr(twin, kind).update(getattr(child, kind))
                setattr(parent, name, twin.train(child.training))
