"""How rough a picture is around its hole: what a hole's own roughness is best guessed from.

A smooth sky goes on smoothly and gravel goes on as gravel. At every size the squares of what that size adds to the
coarser one are averaged over the known cells near each cell; their logarithm says how wide a prior should be there.

Shapes: B batch, C picture channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from manyfill.models.expectation import colour_axes

REACH = 1 / 24
"""Of the picture's side: how far off, along each axis, a known cell weighs a third of one at hand."""
SHARPNESS = 4  # A cell known in half weighs a sixteenth of one known whole: the rest of it is a smooth guess.
TYPICAL, FAINTEST, FAINTNESS = 0.01, 1e-5, 1e-30
CENTRE = 3.0  # about minus the mean logarithm, so that what layers are given lies around 0


def textures(pictures: dict[int, Tensor], missing: dict[int, Tensor]) -> dict[int, Tensor]:
    """By size, the logarithm of the known surroundings' deviation along the colour axes (B, C, size, size).

    `pictures` (B, C, size, size) have their holes filled by a smooth guess; `missing` (B, 1, size, size) is the share
    of each cell that lies in the hole. How rough that guess is has no say.
    """
    return {size: _texture(pictures[size].float(), 1 - missing[size].float()) for size in pictures}


def _texture(picture: Tensor, known: Tensor) -> Tensor:
    size = picture.shape[-1]
    if size == 1:
        return torch.zeros_like(picture)  # there is nothing coarser that a single cell could differ from
    # Autocast's bfloat16 holds neither the weights of far cells nor small squares.
    with torch.autocast(picture.device.type, enabled=False):
        coarser = F.interpolate(F.avg_pool2d(picture, 2), size=size, mode="bilinear", align_corners=False)
        added = torch.einsum("ac,bchw->bahw", colour_axes(picture.shape[1]).to(picture), picture - coarser)
        place = torch.arange(size, device=picture.device, dtype=torch.float32)
        nearness = torch.exp(-(place[:, None] - place).abs() / (REACH * size))
        weight = known**SHARPNESS
        energy = nearness @ (added.square() * weight) @ nearness + FAINTNESS * TYPICAL
        return CENTRE + 0.5 * torch.log(energy / (nearness @ weight @ nearness + FAINTNESS) + FAINTEST)
