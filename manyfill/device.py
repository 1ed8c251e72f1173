"""Where to compute and how precisely."""

from contextlib import AbstractContextManager, nullcontext

import torch

from manyfill.errors import ConfigError
from manyfill.processors import processors


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def named(name: str) -> torch.device:
    """The device that torch calls so, such as cpu or cuda:1; ConfigError where it cannot be used."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"--device {name}: cannot be used here; name cpu, or a GPU that torch sees") from None


def leaves_a_core(device: torch.device) -> bool:
    """Whether a processor is free while a model computes: beside a GPU, or where torch has fewer threads than that."""
    return device.type != "cpu" or torch.get_num_threads() < processors()


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are quicker than float32 ones: on GPUs, and on CPUs with the instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def autocast(device: torch.device, precision: str = "auto") -> AbstractContextManager[None]:
    """Mixed precision for a forward pass: `auto` is bfloat16 where it is fast, else float32."""
    if precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
