"""Figures that look through another network's eyes: LPIPS of pairs, FID and KID of whole sets of pictures.

The networks' weights are not part of the package: the user supplies them as safetensors files, and each network's
HOW_TO_GET says where they are to be had. The features of FID and KID are those of `evaluate.inception`.

Shapes: B batch, C channels, H W size, N M pictures, D features of a picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from manyfill.errors import DataError, ModelError, PictureError

SMALLEST = 31  # pixels; AlexNet's last pool has nothing left to look at below
ROWS = 1024  # of a kernel matrix held at a time


class Pretrained(nn.Module):
    """A frozen network whose weights the user supplies, under the names of its state dict."""

    HOW_TO_GET: ClassVar[str]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The network in eval mode with the weights of a safetensors file; tensors it has no use for are ignored.

        ModelError for a file that is missing, of another kind, incomplete, or whose shapes differ.
        """
        mend = f"{cls.__name__}.HOW_TO_GET says how to make one"
        try:
            tensors = safetensors.torch.load_file(path)
        except FileNotFoundError:
            raise ModelError(f"{path}: no such file; {mend}") from None
        except (OSError, SafetensorError):
            raise ModelError(f"{path}: is no readable safetensors file; {mend}") from None
        network = cls()
        wanted = {name: t for name, t in network.state_dict().items() if not name.endswith("num_batches_tracked")}
        missing = [name for name in wanted if name not in tensors]
        if missing:
            raise ModelError(f"{path}: lacks {len(missing)} of {len(wanted)} tensors, as {missing[0]}; {mend}")
        for name, tensor in wanted.items():
            if tensors[name].shape != tensor.shape:
                found, needed = tuple(tensors[name].shape), tuple(tensor.shape)
                raise ModelError(f"{path}: {name} has shape {found} where {needed} is needed; {mend}")
        network.load_state_dict({name: tensors[name] for name in wanted})
        return network.eval().requires_grad_(False)


def as_rgb(pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) of such, or of grey ones (B, 1, H, W) repeated; PictureError for any other shape."""
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3):
        raise PictureError(f"pictures: have shape {tuple(pictures.shape)}; give (B, 3, H, W) or grey (B, 1, H, W)")
    return pictures.expand(-1, 3, -1, -1)


# -------------------------------------------------------------------------------------------------------- LPIPS


class Lpips(Pretrained):
    """Learned perceptual distance of two pictures, version 0.1 on AlexNet; Zhang et al. (2018), equation 1.

    The linear heads' weights are one per channel, and their order is that of AlexNet's five ReLUs.
    """

    HOW_TO_GET = """\
LPIPS needs the layers of torchvision's AlexNet and the heads of the lpips package in one safetensors file. In Python:

    from safetensors.torch import save_file
    from torch.hub import load_state_dict_from_url as get

    safely = {"map_location": "cpu", "weights_only": True}
    layers = get("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", **safely)
    heads = get("https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/alex.pth", **safely)
    save_file({**layers, **heads}, "lpips.safetensors")
"""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        # From [-1, 1] to what AlexNet was trained on: ImageNet's means and deviations, which are given for [0, 1].
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("shift", (2 * mean - 1).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", (2 * std).view(3, 1, 1), persistent=False)
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )
        for number, width in enumerate((64, 192, 384, 256, 256)):
            # The identity stands where the heads had dropout in training: the weights' names count it.
            head = nn.Sequential(nn.Identity(), nn.Conv2d(width, 1, 1, bias=False))
            self.add_module(f"lin{number}", nn.ModuleDict({"model": head}))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (B,) of pictures (B, 3, H, W), or grey (B, 1, H, W), on [-1, 1]; 0 for equal ones.

        PictureError where the two shapes differ or a side is below 31: an enlarged picture would not compare.
        """
        if a.shape != b.shape:
            raise PictureError(f"pictures: shapes {tuple(a.shape)} and {tuple(b.shape)} differ; give pairs of one size")
        distance = a.new_zeros(len(a))
        for number, (one, other) in enumerate(zip(self._directions(a), self._directions(b), strict=True)):
            head = self.get_submodule(f"lin{number}.model")
            distance = distance + head((one - other).square()).mean((1, 2, 3))
        return distance

    def _directions(self, pictures: Tensor) -> Iterator[Tensor]:
        """Every ReLU's output (B, C, H, W), of unit length along the channels."""
        h = (as_rgb(pictures) - self.shift) / self.scale
        if min(h.shape[2:]) < SMALLEST:
            height, width = h.shape[2:]
            raise PictureError(f"pictures: {height}x{width} is too small for LPIPS; enlarge to {SMALLEST} at least")
        for layer in self.features:
            h = layer(h)
            if isinstance(layer, nn.ReLU):
                yield F.normalize(h, dim=1, eps=1e-10)


# -------------------------------------------------------------------------------------------------- FID and KID


@dataclass(frozen=True)
class Moments:
    """Sums over N pictures' features in float64, all that FID needs of a set: they take no more room as N grows.

    count N; total (D,) of the features; products (D, D) of their outer products. Sets join by `+`; `Moments.of` no
    features (0, D) is the neutral element to start from.
    """

    count: int
    total: Tensor
    products: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """The moments of features (N, D), on the CPU."""
        rows = features.detach().cpu().double()
        return cls(len(rows), rows.sum(0), rows.T @ rows)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.count + other.count, self.total + other.total, self.products + other.products)

    def mean(self) -> Tensor:
        """Mean (D,) of the features."""
        return self.total / self.count

    def covariance(self) -> Tensor:
        """Unbiased covariance (D, D) of the features; two pictures at least."""
        return (self.products - torch.outer(self.total, self.mean())) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """FID, |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)); Heusel et al. (2017), equation 6.

    Too high for few pictures, so that only figures of equal counts compare. DataError for fewer than two pictures.
    """
    _check_counts(a.count, b.count)
    cov_a, cov_b = a.covariance(), b.covariance()
    values, vectors = torch.linalg.eigh(cov_a)
    # With R R^T = S_a, S_a S_b has the eigenvalues of the symmetric R^T S_b R. Directions in which S_a is zero but for
    # rounding are left out: the square root would make 1e-8 of 1e-16.
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    root = vectors[:, kept] * values[kept].sqrt()
    trace_of_root = torch.linalg.eigvalsh(root.T @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean() - b.mean()).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_of_root
    return max(0.0, distance.item())  # rounding alone makes it negative


def kernel_distance(a: Tensor, b: Tensor, paired: bool = False) -> float:
    """KID of features (N, D) and (M, D): the unbiased MMD^2 with kernel (x.y / D + 1)^3; Binkowski et al. (2018).

    `paired` says that row i of both is of one picture, as with a fill and its truth: such pairs are not independent and
    are left out (Gretton et al. 2012, lemma 6).

    One estimate from all pairs (Gretton et al. 2012, equation 3), not a mean over random subsets, which has the same
    expectation and more variance. It may be negative. DataError for fewer than two pictures.
    """
    _check_counts(len(a), len(b))
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    within = sum((_kernel_sum(x, x) - _kernel(x, x, "ij,ij->i").sum()) / (len(x) * (len(x) - 1)) for x in (a, b))
    if paired:
        across = (_kernel_sum(a, b) - _kernel(a, b, "ij,ij->i").sum()) / (len(a) * (len(a) - 1))
    else:
        across = _kernel_sum(a, b) / (len(a) * len(b))
    return float(within - 2 * across)


def _kernel(a: Tensor, b: Tensor, pairs: str) -> Tensor:
    return (torch.einsum(pairs, a, b) / a.shape[1] + 1) ** 3


def _kernel_sum(a: Tensor, b: Tensor) -> Tensor:
    """The kernel summed over all pairs of rows, some rows at a time."""
    return torch.stack([_kernel(rows, b, "id,jd->ij").sum() for rows in a.split(ROWS)]).sum()


def _check_counts(*counts: int) -> None:
    if min(counts) < 2:
        raise DataError(f"pictures: sets of {counts[0]} and {counts[1]} cannot be compared; give two or more of each")
