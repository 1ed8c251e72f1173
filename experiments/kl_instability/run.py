"""How often KL terms explode, by the number of levels and the learning rate, and which cure prevents it.

python experiments/kl_instability/run.py --pictures TRAIN --validation VAL
"""

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from explosions import UNCODED, explosions, kl_of
from grid import PLAIN, SEVEN, Cell, Finished, Table, chosen, conduct, hierarchy, steady, wilson

from manyfill.plots import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, SEEDS, MANY_SEEDS = 200, 3, 20
RATES = (1.2e-3, 3.6e-3, 6e-3, 1.2e-2)  # the default one, three, five and ten times it
LEVELS = {
    7: SEVEN,
    3: (1, 8, 32),
    12: (1, 1, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32),
    5: (1, 4, 8, 16, 32),
}
NO_SKIPPING = {"train.skip_factor": 1e9}
ALL = {"norm": "batch", "posterior": "residual", "scale": "softplus", "bounded": True}
REGULARISED = {"train.kl_warmup": 0.5, "train.spectral_weight": 1e-3}
# By name: what of the model differs from the plain one, and what of the training.
DESIGNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (PLAIN, NO_SKIPPING),
    "batch norm": (PLAIN | {"norm": "batch"}, NO_SKIPPING),
    "residual posterior": (PLAIN | {"posterior": "residual"}, NO_SKIPPING),
    "softplus scales": (PLAIN | {"scale": "softplus"}, NO_SKIPPING),
    "default": ({}, {}),
    "bounded latents": (PLAIN | {"bounded": True}, NO_SKIPPING),
    "group norm": (PLAIN | {"norm": "group"}, NO_SKIPPING),
    "gradient skipping": (PLAIN, {}),
    "KL warm-up": (PLAIN, NO_SKIPPING | {"train.kl_warmup": 0.5}),
    "spectral": (PLAIN, NO_SKIPPING | {"train.spectral_weight": 1e-3}),
    "all of these": (PLAIN | ALL, REGULARISED),
}


def cells(quick: bool) -> list[Cell]:
    if quick:
        return [cell("plain", 7, RATES[0], 0, 4), cell("default", 7, RATES[0], 0, 4)]
    grid = product(range(MANY_SEEDS), RATES, LEVELS, DESIGNS)
    return [
        cell(design, count, rate, seed) for seed, rate, count, design in grid if _is_asked(design, count, rate, seed)
    ]


def _is_asked(design: str, levels: int, rate: float, seed: int) -> bool:
    """Cures are compared at seven levels, three designs at all levels, and two of these with many seeds."""
    if seed < SEEDS:
        return levels == 7 or design in ("plain", "batch norm", "default")
    return design in ("plain", "default") and levels in (3, 7, 12) and rate in RATES[:2]


def cell(design: str, levels: int, rate: float, seed: int, steps: int = STEPS) -> Cell:
    model, training = DESIGNS[design]
    rhythm = {"train.learning_rate": rate, "train.schedule": "constant", "train.warmup_steps": 0}
    settings = hierarchy(LEVELS[levels], **model) | steady(steps) | rhythm | training
    return Cell({"design": design, "levels": levels, "rate": rate, "seed": seed}, settings)


def measure(run: Finished) -> dict[str, Any]:
    """Whether and when the KL exploded, how high it got, and whether the averaged weights are of any use."""
    train = [record for record in run.log if record["kind"] == "train"]
    cost, steps = [kl_of(record) for record in train], explosions(train)
    bound = run.log[-1]["bits_per_dim"]
    return {
        "exploded": bool(steps),
        "by_step": steps[0] if steps else None,
        "lost": bound is None or bound > UNCODED,
        "first_kl": cost[0],
        "highest_kl": max((kl for kl in cost[1:] if kl is not None), default=None),
        "broken_steps": train[-1]["broken_steps"],
        "skipped_steps": train[-1]["skipped_steps"],
        "validation": bound,
    }


def table(records: list[dict[str, Any]]) -> Table:
    """Runs that exploded of all, by design: for each number of levels, for each rate, and of all."""
    rates = sorted({record["rate"] for record in records})
    levels = sorted({record["levels"] for record in records})
    head = ["design", *(f"{count} levels" for count in levels), *(f"rate {rate:g}" for rate in rates)]
    head += ["all", "95 %", "lost", "largest rate without"]
    rows = []
    for design in dict.fromkeys(record["design"] for record in records):
        own = chosen(records, design=design)
        parts = [*(chosen(own, levels=count) for count in levels), *(chosen(own, rate=rate) for rate in rates)]
        low, high = wilson(exploded(own), len(own))
        rows.append(
            [
                design,
                *(f"{exploded(part)}/{len(part)}" if part else "" for part in [*parts, own]),
                f"{low:.0%} to {high:.0%}",
                f"{sum(record['lost'] for record in own)}",
                largest_stable(own),
            ]
        )
    return head, rows


def exploded(records: list[dict[str, Any]]) -> int:
    return sum(record["exploded"] for record in records)


def largest_stable(records: list[dict[str, Any]]) -> str:
    """The largest rate up to which no run exploded."""
    stable = "none"
    for rate in sorted({record["rate"] for record in records}):
        if exploded(chosen(records, rate=rate)):
            break
        stable = f"{rate:g}"
    return stable


def plot(records: list[dict[str, Any]]) -> "Figure":
    """The share of runs that exploded against the rate, a panel for each number of levels."""
    levels = sorted({record["levels"] for record in records})
    figure, places = panels(len(levels), height=3.0)
    for count, panel in zip(levels, places, strict=False):
        for number, design in enumerate(DESIGNS):
            own = chosen(records, levels=count, design=design)
            rates = sorted({record["rate"] for record in own})
            shares = [exploded(part) / len(part) for part in (chosen(own, rate=rate) for rate in rates)]
            # A little apart, or lines at 0 would hide each other.
            shifted = [share + 0.005 * number for share in shares]
            if own:
                panel.plot(
                    rates, shifted, "o-" if number < 10 else "o--", markersize=3, color=f"C{number}", label=design
                )
        panel.set_xscale("log")
        panel.set_xticks(RATES, [f"{rate:g}" for rate in RATES], rotation=45)
        panel.minorticks_off()
        panel.set_ylim(-0.05, 1.15)
        panel.set_title(f"{count} levels", fontsize=9)
        panel.set_xlabel("learning rate", fontsize=7)
        panel.set_ylabel("share that exploded", fontsize=7)
        panel.tick_params(labelsize=7)
        panel.legend(fontsize=5, loc="upper left")
    return figure


if __name__ == "__main__":
    conduct(__file__, __doc__ or "", cells, measure, table, plot)
