"""Do autoregressive priors and heads close the fine levels' gap, and what do they cost: the remedies named in 2017.

python experiments/autoregressive/run.py --pictures TRAIN --validation VAL

Small 32x32 models that differ in nothing but these parts, after the same time on one core, beside a Gaussian one of as
many parameters as the largest.
"""

import sys
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from grid import WIDTHS, Cell, Finished, Table, conduct, hierarchy, steady

from manyfill.evaluate.run import Evaluation, Request
from manyfill.models.latent_prior import AutoregressivePrior
from manyfill.models.pixelcnn import PixelCNNHead
from manyfill.models.topdown import LatentBlock
from manyfill.pipeline import Filler
from manyfill.rng import generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MINUTES, SIZES, TRAINING = 3.0, (1, 4, 8, 8, 16, 16, 32), 11000
FILLS, PICTURES, BOUND_SAMPLES = 16, 64, 2
COARSE, FINE = {4, 8}, {16, 32}
KINDS = "fit", "validation"
WIDER = "Gaussian, twice as wide"
# By name: the sizes whose levels have autoregressive priors, and the head.
DESIGNS: dict[str, tuple[set[int], str]] = {
    "Gaussian": (set(), "mixture"),
    "PixelCNN head": (set(), "pixelcnn"),
    "multiscale head": (set(), "multiscale"),
    "coarse priors": (COARSE, "mixture"),
    "fine priors": (FINE, "mixture"),
    "all priors": (COARSE | FINE, "mixture"),
    "all priors, PixelCNN head": (COARSE | FINE, "pixelcnn"),
    WIDER: (set(), "mixture"),
}


def cells(quick: bool) -> list[Cell]:
    length = steady(4) if quick else steady() | {"train.minutes": MINUTES}
    length |= {"train.fit_pictures": 16 if quick else 256, "train.batch_size": 16}
    return [Cell({"design": name}, design(name) | length, TRAINING) for name in DESIGNS]


def design(name: str) -> dict[str, Any]:
    autoregressive, head = DESIGNS[name]
    factor = 2 if name == WIDER else 1
    stages = [{"size": size, "width": factor * width} for size, (width, _) in WIDTHS.items()]
    levels = [
        {
            "size": size,
            "width": factor * WIDTHS[size][0],
            "latent": WIDTHS[size][1],
            "prior": "autoregressive" if size in autoregressive else "gaussian",
        }
        for size in SIZES
    ]
    return hierarchy(SIZES, stages=stages, levels=levels, head=head)


def measure(run: Finished) -> dict[str, Any]:
    """What is kept of a run: its log's last figures, and those of its fills of some validation pictures."""
    last = {kind: next(record for record in reversed(run.log) if record["kind"] == kind) for kind in KINDS}
    filler = Filler.from_pretrained(run.model)
    evaluation = Evaluation(
        Request(
            models={"it": filler},
            data=(Path(run.validation),),
            masks="centre",
            samples=FILLS,
            bound_samples=BOUND_SAMPLES,
            limit=4 if run.quick else PICTURES,
            baselines=(),
        ),
        run.out / "evaluation",
    )
    evaluation.check()
    with evaluation.claimed():
        evaluation.run(lambda numbers, _: iter(numbers))
    rows = evaluation.rows("it", "centre")
    scores = ("crps", "energy", "psnr_best", "psnr_mean")
    levels = range(1, len(filler.model.config.levels) + 1)
    return {
        "parameters": sum(p.numel() for p in filler.model.parameters()),
        "steps": last["validation"]["step"],
        **{f"{kind}_bits": last[kind]["bits_per_dim"] for kind in KINDS},
        **{f"{kind}_pixel_bits": last[kind]["pixel_bits"] for kind in KINDS},
        **{f"{kind}_kl": [last[kind][f"kl_{level:02d}"] for level in levels] for kind in KINDS},
        **{name: float(np.mean([row[name] for row in rows])) for name in scores},
        **cost(filler),
    }


@torch.inference_mode()
def cost(filler: Filler) -> dict[str, float]:
    """Processor seconds of 8 fills of one centre hole, and the passes that the head and the levels' priors take."""
    model, size = filler.model, filler.model.config.size
    x, m = torch.zeros(1, model.config.channels, size, size), torch.zeros(1, 1, size, size)
    m[..., size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
    spent = []
    for _ in range(5):
        began = process_time()
        model.fill(model.encode_known(x, m), [generator(0, "fill", i) for i in range(8)])
        spent.append(process_time() - began)
    head = model.head.network.rows(m).passes if isinstance(model.head, PixelCNNHead) else 1
    holes = {level.size: size // level.size for level in model.config.levels}
    stages = 0
    for level, block in zip(model.config.levels, model.topdown.blocks, strict=True):
        assert isinstance(block, LatentBlock)
        pooled, chain = torch.nn.functional.max_pool2d(m, holes[level.size]), block.chain
        stages += chain.network.rows(pooled).passes if isinstance(chain, AutoregressivePrior) else 1
    return {"fill_seconds": sorted(spent)[2], "head_passes": head, "prior_passes": stages}


def table(records: list[dict[str, Any]]) -> Table:
    head = ["design", "parameters", "steps", "training, bits/dim", "validation", "pixels", "KL coarse", "KL fine"]
    head += ["gap of the fine KL"]
    head += ["CRPS", "energy", "best of 16, dB", "passes: priors, head", "ms per 8 fills"]
    rows = []
    fine = [level for level, size in enumerate(SIZES) if size in FINE]
    for record in records:
        kl, fit_kl = record["validation_kl"], record["fit_kl"]
        part, fit_part = sum(kl[level] for level in fine), sum(fit_kl[level] for level in fine)
        rows.append(
            [
                record["design"],
                f"{record['parameters']:,}",
                f"{record['steps']:,}",
                f"{record['fit_bits']:.3f}",
                f"{record['validation_bits']:.3f}",
                f"{record['validation_pixel_bits']:.3f}",
                f"{sum(kl) - part:.3f}",
                f"{part:.3f}",
                f"{part - fit_part:+.3f}",
                f"{record['crps']:.2f}",
                f"{record['energy']:.2f}",
                f"{record['psnr_best']:.2f}",
                f"{record['prior_passes']}, {record['head_passes']}",
                f"{1000 * record['fill_seconds']:.0f}",
            ]
        )
    return head, rows


def plot(records: list[dict[str, Any]]) -> "Figure":
    """Validation bits by level and for the pixels, and the bound against the time of a fill."""
    from manyfill.plots import panels

    figure, places = panels(2, height=3.0)
    parts, cost_of = next(places), next(places)
    bottom = np.zeros(len(records))
    shares = [*([record["validation_kl"][level] for record in records] for level in range(len(SIZES)))]
    shares.append([record["validation_pixel_bits"] for record in records])
    for share, label in zip(shares, [*(f"{size}x{size}" for size in SIZES), "pixels"], strict=True):
        parts.bar(range(len(records)), share, bottom=bottom, label=label)
        bottom += share
    parts.set_xticks(range(len(records)), [record["design"] for record in records], rotation=60, fontsize=6)
    parts.set_ylabel("validation, bits/dim", fontsize=7)
    parts.legend(fontsize=5, loc="center")
    for index, record in enumerate(records):
        place = 1000 * record["fill_seconds"], record["validation_bits"]
        cost_of.plot(*place, "o", markersize=4)
        cost_of.annotate(record["design"], place, (4, -7 if index % 2 else 3), textcoords="offset points", fontsize=5)
    cost_of.margins(x=0.3, y=0.15)
    cost_of.set_xlabel("ms per 8 fills", fontsize=7)
    return figure


if __name__ == "__main__":
    conduct(__file__, __doc__ or "", cells, measure, table, plot)
