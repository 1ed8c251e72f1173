"""Adapters to the code of VDVAE (Child 2020, arXiv:2011.10650) and of IPA (Harvey et al. 2022, arXiv:2102.12037), which
goes back to it: their networks, their training step, their optimiser, on pictures and holes from here."""

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from contenders.checkout import modules_of, origin
from contenders.contender import HOLE, WHOLE, Contender, count, nearest

LAYOUT = "imagenet64"  # the one that both have for 64x64
WIDTHS = range(8, 2048, 4)
ABSENT = ("mpi4py", "torchvision", "sklearn", "imageio", "wandb", "matplotlib", "apex")  # not needed for a step
OPTIMISER = {"apex.optimizers.FusedAdam": torch.optim.AdamW}  # the same rule, but for GPUs alone


def thinned(blocks: str, share: float) -> str:
    """A layout such as "64x11,64d2,32x20" with a share of the repeated blocks, at least one of each."""
    parts = []
    for part in blocks.split(","):
        size, times, repeats = part.partition("x")
        parts.append(f"{size}x{max(1, round(share * int(repeats)))}" if times else part)
    return ",".join(parts)


class VDVAE(Contender):
    """Unconditional: it learns whole pictures and fills no hole."""

    name, task, precision = "vdvae", WHOLE, "fp32"
    modes = ("weights", "averaged weights")
    repository, network = "github.com/openai/vdvae", "VAE"
    flags: tuple[str, ...] = ()

    def __init__(self, folder: Path, wanted: int, size: int, share: float = 1.0) -> None:
        names = ("hps", "vae", "train_helpers", "train")
        self.hps, self.vae, self.helpers, self.train = modules_of(
            f"--{self.name}", folder, self.repository, names, ABSENT, OPTIMISER
        )
        self.origin = origin(folder, self.repository)
        if share < 1:
            self.name = f"{self.name}, {share:.2g} of its blocks"
        self.size, self.share = size, share
        with torch.device("meta"):
            width = nearest(lambda width: self._network(self._settings(width)), wanted, WIDTHS)
        self.settings = self._settings(width)
        self.origin |= {"layout": LAYOUT, "width": str(width), "blocks": f"{share:g}"}
        self.batch = self.settings.n_batch
        torch.manual_seed(0)
        self.model, self.average = self._network(self.settings), self._network(self.settings)
        self.average.load_state_dict(self.model.state_dict())
        self.average.requires_grad_(False)
        told = self.helpers.load_opt(self.settings, self.model, lambda *args, **kwargs: None)
        self.optimizer, self.schedule = told[:2]
        self.mean, self.deviation, self.steps = 0.0, 1.0, 0
        self._on_this_machine(self.train)

    def _settings(self, width: int) -> Any:
        settings = self.hps.Hyperparams()
        parser = self.hps.add_vae_arguments(argparse.ArgumentParser())
        flags = ["--hps", LAYOUT, "--seed", "0", "--width", str(width), *self.flags]
        for blocks in ("enc_blocks", "dec_blocks"):
            flags += [f"--{blocks}", self._fitting(thinned(self.hps.HPARAMS_REGISTRY[LAYOUT][blocks], self.share))]
        self.hps.parse_args_and_update_hparams(settings, parser, s=flags)
        settings.image_size, settings.image_channels = self.size, 3
        return settings

    def _fitting(self, blocks: str) -> str:
        """The layout without the sizes beyond that of the pictures."""
        sizes = (part.replace("m", "x").replace("d", "x").split("x")[0] for part in blocks.split(","))
        return ",".join(p for p, size in zip(blocks.split(","), sizes, strict=True) if int(size) <= self.size)

    def _network(self, settings: Any) -> Any:
        return getattr(self.vae, self.network)(settings)

    def _on_this_machine(self, train: ModuleType) -> None:
        # What their step sends to a GPU to be summed over ranks stays here.
        train.get_cpu_stats_over_ranks = as_numbers  # type: ignore[attr-defined]

    @property
    def parameters(self) -> int:
        return count(self.model)

    def prepare(self, pictures: Tensor) -> None:
        self.mean, self.deviation = float(pictures.mean()), float(pictures.std())

    def shown(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Channels last: pictures of mean 0 and deviation 1, as the network reads them, and in [-1, 1]."""
        target = x.permute(0, 2, 3, 1).contiguous()
        return (target - self.mean) / self.deviation, target

    def step(self, x: Tensor, m: Tensor, progress: float) -> None:
        read, target = self.shown(x)
        told = self.train.training_step(
            self.settings, read, target, self.model, self.average, self.optimizer, self.steps
        )
        self.schedule.step()
        self.refused += int(told["skipped_updates"])
        self.steps += 1

    def of_mode(self, mode: str) -> Any:
        return self.average if mode == "averaged weights" else self.model

    @torch.no_grad()
    def nats(self, x: Tensor, m: Tensor, mode: str) -> float:
        return float(self.of_mode(mode).forward(*self.shown(x))["elbo"]) * x.numel()

    @torch.no_grad()
    def fill(self, x: Tensor, m: Tensor, mode: str) -> Tensor:
        return from_levels(self.of_mode(mode).forward_uncond_samples(len(x)))


class IPA(VDVAE):
    """Conditional: a second encoder reads the known part.

    All is learnt at once, from scratch, by its own objective with the pixels of the hole alone (its flags), since no
    VDVAE of this size comes pretrained.
    """

    name, task = "ipa", HOLE
    repository, network = "github.com/plai-group/ipa", "ConditionalVAE"
    flags = ("--train_encoder_decoder", "all", "--mask_distortion")

    def _on_this_machine(self, train: ModuleType) -> None:
        super()._on_this_machine(train)
        self.known = torch.zeros(())
        # Their step draws its holes at random; the benchmark's take their place.
        train.sample_part_images = lambda settings, images: self.known  # type: ignore[attr-defined]

    def part(self, read: Tensor, m: Tensor) -> Tensor:
        """What the second encoder reads: the known part, and where it is."""
        seen = 1 - m.permute(0, 2, 3, 1)
        return torch.cat([read * seen, seen], -1)

    def step(self, x: Tensor, m: Tensor, progress: float) -> None:
        self.known = self.part(self.shown(x)[0], m)
        super().step(x, m, progress)

    @torch.no_grad()
    def nats(self, x: Tensor, m: Tensor, mode: str) -> float:
        read, target = self.shown(x)
        # Their figure is per value of the whole picture.
        return float(self.of_mode(mode).forward(self.part(read, m), read, target)["elbo"]) * x.numel()

    @torch.no_grad()
    def fill(self, x: Tensor, m: Tensor, mode: str) -> Tensor:
        drawn = from_levels(self.of_mode(mode).forward_uncond_samples(len(x), self.part(self.shown(x)[0], m)))
        return x * (1 - m) + drawn * m


def as_numbers(stats: dict[str, Any]) -> dict[str, float]:
    return {name: float(torch.as_tensor(value).detach()) for name, value in stats.items()}


def from_levels(pixels: Any) -> Tensor:
    """Pictures uint8 (B, S, S, C) as (B, C, S, S) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
