"""What drawing position after position costs: with and without the activation cache, and in how many passes.

python benchmarks/autoregressive.py --json autoregressive.json
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from common import check_writable, run, write_json

from manyfill.benchmark import machine, model_named
from manyfill.models.causal import CausalNetwork
from manyfill.models.hvae import ConditionalHVAE
from manyfill.models.latent_prior import AutoregressivePrior
from manyfill.models.pixelcnn import PixelCNNHead
from manyfill.rng import generator

FILLS, HOLE, REPEATS = 8, 32, 5
PRESETS = ("base64", "pixelvae64", "multiscale64")


def seconds(work: Callable[[], object]) -> dict[str, float]:
    """Medians of wall and processor seconds."""
    work()
    walls, processor = [], []
    for _ in range(REPEATS):
        wall, own = perf_counter(), process_time()
        work()
        walls.append(perf_counter() - wall)
        processor.append(process_time() - own)
    return {"wall": median(walls), "processor": median(processor)}


def hole(size: int, count: int) -> torch.Tensor:
    """Centre holes of HOLE x HOLE (count, 1, size, size)."""
    m, edge = torch.zeros(count, 1, size, size), (size - HOLE) // 2
    m[..., edge : edge + HOLE, edge : edge + HOLE] = 1
    return m


def network_figures(network: CausalNetwork, context: int, m: torch.Tensor) -> dict[str, Any]:
    """A draw with the cache, one pass over all rows without, and what pass by pass would take."""
    rows = network.rows(m)
    told, values = torch.randn(len(rows.where), context), torch.randn(len(rows.where), network.values)
    cached = seconds(lambda: network.draw(rows, told, lambda now, _: values[now], "positions"))
    once = seconds(lambda: network(rows, values, told))["processor"]
    positions = int(m[0].sum())
    return {
        "positions": positions,
        "passes": rows.passes,
        "cached_seconds": cached["processor"],
        "uncached_by_stage": rows.passes * once / cached["processor"],
        "uncached_by_position": positions * once / cached["processor"],
    }


def parts() -> dict[str, tuple[CausalNetwork, int]]:
    heads = {name: model_named(name).head for name in PRESETS[1:]}
    found = {name: (head.network, head.network.width) for name, head in heads.items() if isinstance(head, PixelCNNHead)}
    prior = AutoregressivePrior(64, 4, 16)
    return {**found, "latents": (prior.network, 16)}


def fill(model: ConditionalHVAE, x: torch.Tensor, m: torch.Tensor) -> object:
    return model.fill(model.encode_known(x, m), [generator(0, "fill", i) for i in range(FILLS)])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    check_writable(options.json)
    record: dict[str, Any] = {**machine(), "fills": FILLS, "draws": {}, "fill_seconds": {}}
    print(
        f"{FILLS} draws of a {HOLE}x{HOLE} hole\n\n"
        "| part | positions | passes | seconds | uncached, by stage | by position |"
    )
    print("|---|---|---|---|---|---|")
    for name, (network, context) in parts().items():
        found = record["draws"][name] = network_figures(network, context, hole(64, FILLS))
        ratios = f"{found['uncached_by_stage']:.0f} times | {found['uncached_by_position']:.0f} times"
        print(f"| {name} | {found['positions']} | {found['passes']} | {found['cached_seconds']:.3f} | {ratios} |")
    print(f"\n| {FILLS} fills | wall seconds | processor seconds |\n|---|---|---|")
    for name in PRESETS:
        model, x = model_named(name), torch.rand(1, 3, 64, 64, generator=generator(0, "picture")) * 2 - 1
        found = record["fill_seconds"][name] = seconds(partial(fill, model, x, hole(64, 1)))
        print(f"| {name} | {found['wall']:.3f} | {found['processor']:.3f} |")
    write_json(options.json, record)


if __name__ == "__main__":
    run(main)
