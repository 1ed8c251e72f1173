"""Captions: a small transformer reads them, and the top-down path attends to what it read.

On maps of some sizes every position attends to the tokens; on all sizes the state is scaled and shifted by the pooled
caption (Perez et al. 2018, arXiv:1709.07871). What is said with it starts at nothing, so a model that learns to read
starts as the model without captions that it was; and without a caption nothing is added, whatever was learnt.

Shapes: B pictures, T tokens, W width of the text encoder, A heads, D channels of a head, C channels of the state on
maps of H x W.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from manyfill.models.blocks import dense
from manyfill.models.config import CaptionSpec, ModelConfig
from manyfill.models.tokens import NOTHING

HEADS, HEAD_WIDTH = 4, 16  # of the top-down path's attention
UNHEARD = -1e4


class Told(NamedTuple):
    """What captions tell the state of one size: keys and values (B, A, T, D) to attend to, `hidden` (B, 1, 1, T) that
    is far below 0 where there is no token, and `scale` and `shift` (B, C, 1, 1). All that is added is 0 of no caption.

    Where nothing is attended to, keys and values have no tokens (T = 0).
    """

    keys: Tensor
    values: Tensor
    hidden: Tensor
    scale: Tensor
    shift: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> "Told":
        """The same with every tensor changed."""
        return Told(*map(change, self))


def attended(query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
    """The values (B, A, T, D) weighed by how far their keys (B, A, T, D) meet each query (B, A, Q, D): (B, A, Q, D)."""
    # torch's own takes three times as long on the way back, in bfloat16 on a CPU.
    likeness = query @ keys.transpose(2, 3) * query.shape[3] ** -0.5
    return torch.softmax(likeness + hidden, 3).to(values.dtype) @ values


class TextBlock(nn.Module):
    """Self-attention and two dense layers, each added to its normalised input (Xiong et al. 2020, arXiv:2002.04745)."""

    def __init__(self, width: int, heads: int, gain: float) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.look, self.join = dense(width, 3 * width, gain=0.7), dense(width, width, gain=gain)
        self.think = nn.Sequential(dense(width, 2 * width), nn.GELU(), dense(2 * width, width, gain=gain))

    def forward(self, h: Tensor, hidden: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.look(self.norms[0](h)).chunk(3, 2)
        )
        seen = attended(query, key, value, hidden)
        h = h + self.join(seen.transpose(1, 2).flatten(2))
        return h + self.think(self.norms[1](h))


class TextEncoder(nn.Module):
    """From tokens to what each says in its place (B, T, W)."""

    def __init__(self, spec: CaptionSpec) -> None:
        super().__init__()
        self.embed: nn.Module
        if spec.encoder_width:
            self.embed = nn.Sequential(
                nn.LayerNorm(spec.encoder_width), dense(spec.encoder_width, spec.width, gain=0.1)
            )
        else:
            self.embed = nn.Embedding(spec.tokens, spec.width)
            nn.init.normal_(self.embed.weight, std=spec.width**-0.5)
        self.place = nn.Parameter(torch.empty(spec.length, spec.width))
        nn.init.normal_(self.place, std=0.3 * spec.width**-0.5)
        gain = (2 * max(spec.depth, 1)) ** -0.5
        self.blocks = nn.ModuleList(TextBlock(spec.width, spec.heads, gain) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Also which of them are tokens, bool (B, T). Those of a vocabulary are numbers (B, T), those that a pretrained
        encoder has read are states (B, T, E)."""
        present = tokens != NOTHING if tokens.ndim == 2 else tokens.any(2)
        hidden = hiding(present)
        h = self.embed(tokens) + self.place[: tokens.shape[1]]
        for block in self.blocks:
            h = block(h, hidden)
        return self.norm(h), present


def hiding(present: Tensor) -> Tensor:
    """(B, 1, 1, T), to be added to attention: far below 0 where no token is present (B, T)."""
    return (~present)[:, None, None] * UNHEARD


class Join(nn.Module):
    """Joins captions to the top-down state (B, C, H, W) of one size."""

    def __init__(self, spec: CaptionSpec, width: int, size: int) -> None:
        super().__init__()
        self.modulate, self.tame = dense(spec.width, 2 * width, gain=0.0), spec.width**-0.5
        self.attends = size in spec.attend
        if self.attends:
            inner = HEADS * HEAD_WIDTH
            self.norm = nn.LayerNorm(width)
            self.place = nn.Parameter(0.1 * torch.randn(size * size, width))
            self.ask = dense(width, inner, gain=0.7)
            self.answer = dense(spec.width, 2 * inner, gain=0.7)
            self.say = nn.Linear(inner, width, bias=False)
            nn.init.zeros_(self.say.weight)

    def recall(self, states: Tensor, present: Tensor) -> Told:
        """What the read captions (B, T, W) tell, of whose tokens some are `present` (B, T)."""
        spoken = present.any(1).to(states.dtype)
        share = present.to(states.dtype)[..., None]
        pooled = (states * share).sum(1) / share.sum(1).clamp(min=1)
        # Every position hears the same, and most captions much of it: untamed, one step of Adam, which moves each of
        # the many weights alike, would change the whole state by a fifth.
        scale, shift = (self.tame * self.modulate(pooled) * spoken[:, None])[..., None, None].chunk(2, 1)
        if not self.attends:
            nothing = states.new_zeros(len(states), HEADS, 0, HEAD_WIDTH)
            return Told(nothing, nothing, states.new_zeros(len(states), 1, 1, 0), scale, shift)
        keys, values = (
            part.unflatten(2, (HEADS, HEAD_WIDTH)).transpose(1, 2) for part in self.answer(states).chunk(2, 2)
        )
        return Told(keys, values * spoken.view(-1, 1, 1, 1), hiding(present), scale, shift)

    def forward(self, h: Tensor, told: Told) -> Tensor:
        if self.attends:
            h = h + self._attended(h, told)
        return torch.addcmul(told.shift.to(h.dtype), h, 1 + told.scale.to(h.dtype))

    def _attended(self, h: Tensor, told: Told) -> Tensor:
        rows = h.permute(0, 2, 3, 1).flatten(1, 2)
        query = self.ask(self.norm(rows) + self.place).unflatten(2, (HEADS, -1)).transpose(1, 2)
        heard = attended(query, told.keys.to(query.dtype), told.values.to(query.dtype), told.hidden)
        said = self.say(heard.transpose(1, 2).flatten(2)) * HEAD_WIDTH**-0.5
        return said.unflatten(1, h.shape[2:]).permute(0, 3, 1, 2)


def joined(rows: Sequence[dict[int, Told]]) -> dict[int, Told]:
    """What a batch is told, by size, of what each picture is (B = 1 each, or nothing)."""
    some = next((told for told in rows if told), {})
    nothing = {size: told.each(torch.zeros_like) for size, told in some.items()}
    return {size: Told(*map(torch.cat, zip(*((told or nothing)[size] for told in rows), strict=True))) for size in some}


def joins(config: ModelConfig) -> nn.ModuleDict:
    """A `Join` for every size of level, or none."""
    spec, made = config.captions, nn.ModuleDict()
    if spec is not None:
        widths = {level.size: level.width for level in config.levels}
        # Without a trace in torch's generator: all else starts as in a model without captions.
        with torch.random.fork_rng([]):
            made.update({str(size): Join(spec, width, size) for size, width in widths.items()})
    return made
