"""What a causal head alone is worth: the shipped model as it is, with each head learnt on top of it for a few steps.

python experiments/autoregressive/heads.py --pictures TRAIN --validation VAL

Nothing but the head learns, so latents that would share the work otherwise do not: a lower bound on what it can gain.
"""

import argparse
import json
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor

from manyfill.checkpoint import load_model
from manyfill.data import open_source
from manyfill.data.loader import tile
from manyfill.files import save_text
from manyfill.images import to_tensor
from manyfill.models.bound import bits_per_dim
from manyfill.models.heads import HEADS, make_head
from manyfill.models.hvae import ConditionalHVAE
from manyfill.models.mixture import MixtureHead
from manyfill.models.pixelcnn import PixelCNNHead
from manyfill.rng import generator

TRAINING, VALIDATION, BATCH, STEPS, RATE = 384, 64, 8, 144, 2e-3


@torch.inference_mode()
def states(model: ConditionalHVAE, paths: list[str], count: int) -> tuple[Tensor, ...]:
    """h, canvas, x and m of `count` pictures with centre holes, with latents drawn from the posterior."""
    source, size = open_source(*paths), model.config.size
    m = torch.zeros(1, 1, size, size)
    m[..., size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
    found = []
    for start in range(0, count, BATCH):
        pixels = [tile(source[index].pixels, size, None) for index in range(start, start + BATCH)]
        x, hole = torch.stack([to_tensor(each) for each in pixels]), m.expand(BATCH, -1, -1, -1)
        caught: list[tuple[Tensor, ...]] = []
        seen = model.encode(x, hole)
        with model.topdown.register_forward_hook(lambda *call, caught=caught: caught.append(call[-1])):
            model.infer(seen, generator(0, "states", start))
        found.append((*caught[0][:2], x, hole))
    return tuple(torch.cat(column) for column in zip(*found, strict=True))


def head_on(model: ConditionalHVAE, name: str) -> MixtureHead:
    """A head that starts as the model's own."""
    torch.manual_seed(0)
    head = make_head(model.config.model_copy(update={"head": name}))
    head.load_state_dict(model.head.state_dict(), strict=False)
    if isinstance(head, PixelCNNHead):
        torch.nn.init.zeros_(head.network.leave.weight)
    return head


def bits(head: MixtureHead, told: tuple[Tensor, ...]) -> Tensor:
    return bits_per_dim(-head.log_prob(*told), told[3].flatten(1).sum(1) * head.channels)


@torch.no_grad()
def validated(head: MixtureHead, validation: tuple[Tensor, ...]) -> float:
    return (
        torch.cat([bits(head, part) for part in zip(*(t.split(BATCH) for t in validation), strict=True)]).mean().item()
    )


def learnt(head: MixtureHead, training: tuple[Tensor, ...], validation: tuple[Tensor, ...]) -> dict[str, Any]:
    """The pixel term on the validation pictures, before and after STEPS steps."""
    before, began = validated(head, validation), process_time()
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    for step in range(STEPS):
        picks = torch.randperm(TRAINING, generator=generator(0, "pass", step * BATCH // TRAINING))
        rows = picks[step * BATCH % TRAINING :][:BATCH]
        loss = bits(head, tuple(t[rows] for t in training)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    spent = process_time() - began
    parameters = sum(p.numel() for p in head.parameters())
    return {"parameters": parameters, "before": before, "after": validated(head, validation), "seconds": spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", nargs="+", required=True, metavar="PATH", help="folders or shards to learn from")
    parser.add_argument("--validation", nargs="+", required=True, metavar="PATH", help="others to validate with")
    options = parser.parse_args()
    model = load_model().model.eval()
    training, validation = states(model, options.pictures, TRAINING), states(model, options.validation, VALIDATION)
    records = {name: learnt(head_on(model, name), training, validation) for name in HEADS}
    print("| head | parameters | pixels, bits/dim: before | after | processor s |\n|---|---|---|---|---|")
    for name, found in records.items():
        figures = f"{found['before']:.3f} | {found['after']:.3f} | {found['seconds']:.0f}"
        print(f"| {name} | {found['parameters']:,} | {figures} |")
    save_text(Path(__file__).with_name("heads.json"), json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
