"""Training long on a small set: in which levels' KL the validation gap opens, and what closes it.

python experiments/overfitting/run.py --pictures TRAIN --validation VAL
"""

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from grid import NORMED, SEVEN, WIDTHS, Cell, Finished, Table, chosen, conduct, hierarchy, steady

from manyfill.diagnose.curves import draw_all
from manyfill.models.config import LevelSpec
from manyfill.train.log import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, SEEDS, BETWEEN, SMALL, MORE = 3500, 2, 250, 250, 2000
# 40x40 pictures, so that random tiles of 32 to 40 can be taken of them.
SIZE = 40
BARE = {
    "train.batch_size": 16,
    "train.learning_rate": 1e-3,
    "train.schedule": "constant",
    "train.weight_decay": 0.0,
    "train.ema_decay": 0.0,
    "data.augment": False,
    "data.flip": False,
}
AUGMENTED = {"data.augment": True, "data.flip": True}
NARROW = {
    "levels": [{"size": size, "width": WIDTHS[size][0], "latent": 1 if size > 8 else WIDTHS[size][1]} for size in SEVEN]
}
CHAINED = {
    "levels": [
        {"size": size, "width": WIDTHS[size][0], "latent": WIDTHS[size][1]}
        | ({"prior": "autoregressive"} if size > 8 else {})
        for size in SEVEN
    ]
}
# By name: what differs from batch norm alone, in the model and in the training.
REMEDIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "batch norm only": ({}, {}),
    "augmentation": ({}, AUGMENTED),
    "dropout": ({"dropout": 0.1}, {}),
    "weight decay": ({}, {"train.weight_decay": 0.1}),
    "EMA": ({}, {"train.ema_decay": 0.999}),
    "narrow fine latents": (NARROW, {}),
    "free bits": ({}, {"train.free_bits": 0.01}),
    "autoregressive fine priors": (CHAINED, {}),
    "more data": ({}, {}),
    "all but more data": (
        {"dropout": 0.1, **NARROW},
        {**AUGMENTED, "train.weight_decay": 0.1, "train.ema_decay": 0.999},
    ),
}


def cells(quick: bool) -> list[Cell]:
    remedies = list(REMEDIES)[: 2 if quick else None]
    rhythm = {
        "train.fit_pictures": 16 if quick else 256,
        "train.validation_pictures": 16 if quick else 256,
        "train.validate_every": 2 if quick else BETWEEN,
    }
    return [
        Cell(
            {"remedy": name, "seed": seed},
            hierarchy(SEVEN, **NORMED | REMEDIES[name][0])
            | steady(4 if quick else STEPS)
            | BARE
            | rhythm
            | REMEDIES[name][1],
            MORE if name == "more data" else SMALL,
        )
        for seed, name in product(range(1 if quick else SEEDS), remedies)
    ]


def measure(run: Finished) -> dict[str, Any]:
    """The bound and the KL of each level over time, on training and on validation pictures alike."""
    kept = [record for record in run.log if record["kind"] in ("fit", "validation")]
    names = ("kind", "step", "bits_per_dim", "pixel_bits")
    return {"curves": [{k: _short(v) for k, v in r.items() if k in names or k.startswith("kl_")} for r in kept]}


def _short(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def of_kind(record: dict[str, Any], kind: str) -> list[Record]:
    return [one for one in record["curves"] if one["kind"] == kind]


def gaps(record: dict[str, Any]) -> np.ndarray:
    """KL in validation over that in training at the end (L,), in bits/dim."""
    fit, validation = of_kind(record, "fit")[-1], of_kind(record, "validation")[-1]
    return np.array([validation[key] - fit[key] for key in sorted(fit) if key.startswith("kl_")], float)


def rise(record: dict[str, Any]) -> tuple[float, float, int]:
    """The best validation bound, the last one's distance from it in per cent, and when it was the best."""
    bounds = [(one["bits_per_dim"], one["step"]) for one in of_kind(record, "validation")]
    best, step = min(bounds)
    return best, 100 * (bounds[-1][0] / best - 1), step


def table(records: list[dict[str, Any]]) -> Table:
    levels = [f"{number}: {size}x{size}" for number, size in enumerate(SEVEN, 1)]
    head = ["remedy", "runs", "best bits/dim", "at step", "rise since, %", "gap of the bound", "largest gap of a level"]
    rows = []
    for remedy in dict.fromkeys(record["remedy"] for record in records):
        own = chosen(records, remedy=remedy)
        each, rises = np.stack([gaps(record) for record in own]), [rise(record) for record in own]
        bound = [
            of_kind(record, "validation")[-1]["bits_per_dim"] - of_kind(record, "fit")[-1]["bits_per_dim"]
            for record in own
        ]
        rows.append(
            [
                remedy,
                str(len(own)),
                _range([best for best, _, _ in rises], 3),
                _range([step for _, _, step in rises], 0),
                _range([since for _, since, _ in rises], 2),
                _range(bound, 3),
                _range(each.max(1).tolist(), 4),
                *(f"{gap:.4f}" for gap in each.mean(0)),
            ]
        )
    return [*head, *levels], rows


def _range(values: list[Any], digits: int) -> str:
    """The mean over seeds, and from where to where they go."""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return f"{np.mean(values):.{digits}f}" + (f" ({low} to {high})" if low != high else "")


def plot(records: list[dict[str, Any]]) -> "Figure":
    """KL of each level with batch norm alone, as the 2017 report drew it."""
    levels = [LevelSpec(size=size, width=WIDTHS[size][0], latent=WIDTHS[size][1]) for size in SEVEN]
    return draw_all(records[0]["curves"], levels)["levels"]


if __name__ == "__main__":
    conduct(__file__, __doc__ or "", cells, measure, table, plot, SIZE)
