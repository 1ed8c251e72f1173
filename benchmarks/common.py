"""What both benchmarks share: the model asked for, a word on the machine, the JSON record."""

import json
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from manyfill.checkpoint import load_model
from manyfill.errors import ManyfillError, OutputError
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE


def model_named(source: str) -> ConditionalHVAE:
    """The model of a directory, hub id or "default"; a preset's name gives that preset freshly initialised."""
    if source in PRESETS:
        torch.manual_seed(0)
        return ConditionalHVAE(PRESETS[source]).eval()
    return load_model(source).model


def label(source: str) -> str:
    """How a record names a model: where a directory lies on this machine is nobody's business."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def machine() -> dict[str, Any]:
    """Date, GPU or processor, torch version and thread count."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def check_writable(path: Path | None) -> None:
    """Raise OutputError before hours of work rather than after them."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise OutputError(f"--json {path}: is a folder or lies in none; name a file in an existing folder")


def write_json(path: Path | None, record: dict[str, Any]) -> None:
    """Write a record, if anywhere; OutputError where that fails."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise OutputError(f"--json {path}: cannot be written ({error.strerror}); choose another file") from None


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; what a user can mend becomes one line and exit code 2."""
    try:
        main()
    except ManyfillError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
