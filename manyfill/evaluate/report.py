"""The report of an evaluation: `report.json` of a documented shape, read back for comparison.

report.json, version 1: {"version": 1, "settings": {...}, "models": {NAME: {"masks": {KIND: ROW}}},
"baselines": {NAME: {"masks": {KIND: ROW}}}, "differences": {NAME: {KIND: ROW}} of each further model from the first}.
A figure is {"mean", "low", "high"}, a mean over pictures with its 95 % interval. A ROW holds, where they apply:
bits_per_dim, bits_per_dim_k (of the single- and the K-sample bound), nats, nats_k (the same as code lengths per
picture), psnr_mean, psnr_one, psnr_best, ssim_mean, ssim_one, ssim_best, crps, energy, coverage (of "50", "80", "90",
"95"), seam_ratio, diversity, lpips_mean, lpips_one; count, the number of pictures; kl_bits_per_dim and spread, a figure
for each level; ranks, how often each rank occurred; reliability and by_hole_size, lists of bins.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manyfill.errors import DataError
from manyfill.evaluate.calibration import levels, nominal, percent
from manyfill.evaluate.run import Evaluation
from manyfill.evaluate.summary import differences, summary

VERSION = 1


def build(evaluation: Evaluation) -> dict[str, Any]:
    """The report of finished rows."""
    request, kinds = evaluation.request, evaluation.kinds

    def tables(names: Sequence[str]) -> dict[str, Any]:
        return {name: {"masks": {kind: summary(evaluation.rows(name, kind)) for kind in kinds}} for name in names}

    first, *others = request.models
    return {
        "version": VERSION,
        "settings": {
            "data": [path.name for path in request.data],
            "count": len(evaluation.numbers),
            "calibration_pictures": len(evaluation.calibration),
            "masks": kinds,
            "samples": request.samples,
            "bound_samples": request.bound_samples,
            "seed": request.seed,
            "levels": {percent(level): nominal(level, request.samples) for level in levels(request.samples)},
        },
        "models": tables(list(request.models)),
        "baselines": tables(list(evaluation.baselines)),
        "differences": {
            name: {kind: differences(evaluation.rows(name, kind), evaluation.rows(first, kind)) for kind in kinds}
            for name in others
        },
    }


def read(path: Path) -> dict[str, Any]:
    """A report written before; DataError where it is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        version, models = report["version"], report["models"]
        whole = all(isinstance(model["masks"], dict) for model in models.values())
    except OSError as error:
        raise DataError(f"--against {path}: cannot be read ({error.strerror}); give an earlier report.json") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"--against {path}: is no report.json of an evaluation; give an earlier one") from None
    if version != VERSION or not whole:
        raise DataError(f"--against {path}: is of version {version}, not {VERSION}; evaluate the old model anew")
    return dict(report)
