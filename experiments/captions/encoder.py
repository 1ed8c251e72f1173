"""Trains a small text encoder that has seen pictures, for `--set model.captions.encoder=OUT`.

python experiments/captions/encoder.py --training TRAIN --pictures VAL --out OUT

A caption and its picture are to have like codes, unlike all others of a batch (CLIP, Radford et al. 2021,
arXiv:2103.00020). Only the text's part is kept.

Shapes: B pictures, S the side of a picture, T tokens, W the width of the codes.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from grid import command

from manyfill.data import Source, open_source
from manyfill.data.captions import captions_at, captions_of, mirrored
from manyfill.data.loader import tile
from manyfill.device import autocast
from manyfill.errors import ConfigError
from manyfill.models.tokens import Vocabulary

TOKENS, LONGEST, WIDTH = 4096, 32, 192
CROPPED = 12  # pixels a side that a picture may lose
FORGOTTEN = 0.1  # share of a caption's tokens that are left out
CHOICES = 16


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width), nn.GELU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width), nn.GELU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, h: Tensor) -> Tensor:
        return h + self.body(h)


def picture_encoder() -> nn.Module:
    """From pictures (B, 3, S, S) in [-1, 1] to codes (B, W)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, stride=2, padding=1)]
    for narrow, wide in ((32, 64), (64, 128), (128, 256)):
        layers += [nn.GELU(), nn.Conv2d(narrow, wide, 3, stride=2, padding=1), Residual(wide)]
    return nn.Sequential(*layers, Residual(256), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, WIDTH))


class Pair(nn.Module):
    """Likeness of every picture to every caption."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.see = picture_encoder()
        sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 2 * WIDTH}
        config = transformers.BertConfig(vocab_size=tokens, max_position_embeddings=LONGEST, pad_token_id=0, **sizes)
        self.text = transformers.BertModel(config, add_pooling_layer=False)
        self.say = nn.Linear(WIDTH, WIDTH)
        self.sharpness = nn.Parameter(torch.tensor(math.log(10.0)))

    def read(self, ids: Tensor) -> Tensor:
        present = (ids != 0).float()
        states = self.text(input_ids=ids, attention_mask=present).last_hidden_state
        return self.say((states * present[..., None]).sum(1) / present.sum(1, keepdim=True).clamp(min=1))

    def forward(self, x: Tensor, ids: torch.Tensor) -> Tensor:
        """(B, B), a row for each picture (B, 3, S, S), a column for each caption (B, T)."""
        seen, read = (functional.normalize(codes.float(), dim=1) for codes in (self.see(x), self.read(ids)))
        return self.sharpness.exp().clamp(max=100) * seen @ read.T


def spoken_of(source: Source, size: int) -> tuple[np.ndarray, list[list[str]]]:
    """The pictures with captions, uint8 (N, S, S, 3), and theirs."""
    captions = [captions_at(source, index) for index in range(len(source))]
    places = [index for index, own in enumerate(captions) if own]
    return np.stack([tile(source[index].pixels, size, None) for index in places]), [captions[p] for p in places]


def batches(
    pixels: np.ndarray, captions: Sequence[Sequence[str]], words: Vocabulary, size: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One visit to each picture, cropped and mirrored at random, with one of its captions."""
    side = pixels.shape[1]
    order = rng.permutation(len(pixels))
    for chosen in order[: len(order) // size * size].reshape(-1, size):
        pictures, said = [], []
        for place in chosen:
            kept = side - int(rng.integers(CROPPED + 1))
            top, left = rng.integers(side - kept + 1, size=2)
            picture = torch.from_numpy(pixels[place, top : top + kept, left : left + kept]).permute(2, 0, 1)[None]
            picture = functional.interpolate(picture.float(), (side, side), mode="bilinear")
            caption = captions[place][int(rng.integers(len(captions[place])))]
            if rng.random() < 0.5:
                picture, caption = picture.flip(3), mirrored(caption)
            pictures.append(picture)
            said.append(caption)
        ids = words.read(said, LONGEST)
        yield scaled(torch.cat(pictures)), ids * torch.from_numpy(rng.random(ids.shape) >= FORGOTTEN)


def scaled(pictures: Tensor) -> Tensor:
    return (pictures / 127.5 - 1).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def found(pair: Pair, pixels: np.ndarray, captions: Sequence[Sequence[str]], words: Vocabulary) -> float:
    """How often a picture's first caption is the likest of 16, the others being of those that follow it."""
    with autocast(torch.device("cpu"), "auto"):
        x = scaled(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
        likeness = pair(x, words.read([own[0] for own in captions], LONGEST))
    count = len(pixels)
    places = (torch.arange(count)[:, None] + torch.arange(CHOICES)) % count
    return float((likeness.gather(1, places).argmax(1) == 0).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--training", nargs="+", required=True, metavar="PATH", help="pictures with captions")
    parser.add_argument("--pictures", nargs="+", required=True, metavar="PATH", help="others, to see how far it is")
    parser.add_argument("--out", type=Path, required=True, help="where the encoder is to lie")
    parser.add_argument("--visits", type=int, default=40, help="to every picture")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--size", type=int, default=64, help="of the pictures, in pixels a side")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    source = open_source(*options.training)
    words = Vocabulary.learnt(captions_of(source), TOKENS)
    pixels, captions = spoken_of(source, options.size)
    if len(pixels) < options.batch:
        raise ConfigError(f"--training: {len(pixels)} pictures have captions; name more, or take a smaller --batch")
    others = spoken_of(open_source(*options.pictures), options.size)
    pair = Pair(TOKENS)
    pair.see.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(pair.parameters(), options.rate, (0.9, 0.98), weight_decay=0.1)
    steps = options.visits * (len(pixels) // options.batch)
    warmup = max(steps // 20, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(step / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    target, began = torch.arange(options.batch), time.perf_counter()
    for visit in range(options.visits):
        losses = []
        for x, ids in batches(pixels, captions, words, options.batch, rng):
            with autocast(torch.device("cpu"), "auto"):
                likeness = pair(x, ids)
            loss = (functional.cross_entropy(likeness, target) + functional.cross_entropy(likeness.T, target)) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        share = found(pair.eval(), *others, words)
        pair.train()
        minutes = (time.perf_counter() - began) / 60
        told = f"loss {np.mean(losses):.3f}, found among 16 {share:.1%}, {minutes:.1f} min"
        print(f"visit {visit + 1}: {told}", flush=True)
    pair.text.save_pretrained(options.out)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(words.text), pad_token="[NOTHING]"
    )
    tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    command(main)
