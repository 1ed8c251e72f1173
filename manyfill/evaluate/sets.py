"""How far whole sets of filled pictures lie from the true ones: FID and KID of one fill of every picture."""

from collections.abc import Callable

import numpy as np
import torch

from manyfill.evaluate.baselines import inpaint
from manyfill.evaluate.cases import Case, Cases
from manyfill.evaluate.inception import Inception
from manyfill.evaluate.perceptual import Moments, frechet_distance, kernel_distance
from manyfill.evaluate.run import Evaluation
from manyfill.images import to_tensor

AT_ONCE = 16
Fill = Callable[[Case], np.ndarray]


def distances(evaluation: Evaluation, inception: Inception) -> dict[str, dict[str, dict[str, float]]]:
    """By method, then kind of hole: "fid" and "kid" of filled pictures, known pixels and all, from the true ones."""
    seed, found = evaluation.request.seed, {}
    fills: dict[str, Fill] = {
        name: lambda case, filler=filler: filler(case.pixels, case.mask, 1, seed).images[0]  # type: ignore[misc]
        for name, filler in evaluation.request.models.items()
    }
    fills |= {
        name: lambda case, method=method: np.rint(inpaint(method, case.pixels, case.mask)).astype(np.uint8)  # type: ignore[misc]
        for name, method in evaluation.baselines.items()
    }
    for name, fill in fills.items():
        found[name] = {kind: _distance(inception, evaluation.cases(kind), fill) for kind in evaluation.kinds}
    return found


def _distance(inception: Inception, cases: Cases, fill: Fill) -> dict[str, float]:
    drawn, true = _features(inception, cases, fill), _features(inception, cases, lambda case: case.pixels)
    return {
        "fid": frechet_distance(Moments.of(drawn), Moments.of(true)),
        "kid": kernel_distance(drawn, true),
    }


@torch.inference_mode()
def _features(inception: Inception, cases: Cases, fill: Fill) -> torch.Tensor:
    pictures, features = [], []
    for place in range(len(cases)):
        pictures.append(to_tensor(fill(cases[place])))
        if len(pictures) == AT_ONCE or place + 1 == len(cases):
            features.append(inception(torch.stack(pictures)))
            pictures = []
    return torch.cat(features)
