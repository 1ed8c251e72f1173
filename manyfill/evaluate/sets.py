"""How far whole sets of filled pictures lie from the true ones: FID and KID of one fill of every picture."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from manyfill.evaluate.baselines import Method, inpaint
from manyfill.evaluate.cases import Case, Cases
from manyfill.evaluate.inception import Inception
from manyfill.evaluate.perceptual import Moments, frechet_distance, kernel_distance
from manyfill.evaluate.run import Evaluation
from manyfill.images import to_tensor
from manyfill.pipeline import Filler

AT_ONCE = 16
Fill = Callable[[Case], np.ndarray]


def distances(evaluation: Evaluation, inception: Inception) -> dict[str, dict[str, dict[str, float]]]:
    """By method, then kind of hole: "fid" and "kid" of filled pictures, known pixels and all, from the true ones."""
    fills: dict[str, Fill] = {name: partial(_fill, filler) for name, filler in evaluation.request.models.items()}
    fills |= {name: partial(_guess, method) for name, method in evaluation.baselines.items()}
    true = _features(inception, evaluation.cases(evaluation.kinds[0]), lambda case: case.pixels)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, fill in fills.items():
        for kind in evaluation.kinds:
            drawn = _features(inception, evaluation.cases(kind), fill)
            fid = frechet_distance(Moments.of(drawn), Moments.of(true))
            found.setdefault(name, {})[kind] = {"fid": fid, "kid": kernel_distance(drawn, true, paired=True)}
    return found


def _fill(filler: Filler, case: Case) -> np.ndarray:
    return filler(case.pixels, case.mask, 1, case.seed).images[0]


def _guess(method: Method, case: Case) -> np.ndarray:
    return np.rint(inpaint(method, case.pixels, case.mask)).astype(np.uint8)


@torch.inference_mode()
def _features(inception: Inception, cases: Cases, fill: Fill) -> Tensor:
    features = []
    for start in range(0, len(cases), AT_ONCE):
        places = range(start, min(start + AT_ONCE, len(cases)))
        features.append(inception(torch.stack([to_tensor(fill(cases[place])) for place in places])))
    return torch.cat(features)
