"""Kill a training run at random moments, again and again, and see what is lost of it.

    python scripts/kill_test.py --kills 100 --json benchmarks/results/kill_test.json

A very small model trains in a process of its own, with a checkpoint every other step, so that much of its time goes
into saving. SIGKILL meets it after a random delay; then everything under a final name in its directory must read back
whole, and the same call goes on. The weights at its end must be those of a run that nobody disturbed, byte for byte.

For comparison the run also writes its state in place, by a plain torch.save to one file, at the same steps: it is
counted how often a kill leaves that file, all that such a run would have, unreadable.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manyfill.checkpoint import load_model, load_state
from manyfill.images import save_png
from manyfill.locate import looks_like_model
from manyfill.train.log import read
from manyfill.train.loop import run
from manyfill.train.settings import Settings, load
from manyfill.train.state import RunState, checkpoints

STEPS = 120
RECIPE = Path(__file__).parents[1] / "tests" / "micro.toml"
RHYTHM = ("train.checkpoint_every=2", "train.validate_every=20", "train.validation_pictures=2")
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["manyfill.train.loop", "torch.utils.tensorboard"])  # imports take seconds


def settings_of(folder: Path) -> Settings:
    """A run of seconds on six small pictures, which it writes to `folder`."""
    (folder / "pictures").mkdir()
    draws = np.random.default_rng(0)
    for index in range(6):
        save_png(folder / "pictures" / f"{index}.png", draws.integers(0, 255, (12, 12, 3), np.uint8))
    return load([str(folder / "pictures")], config=RECIPE, assignments=RHYTHM, steps=STEPS)


def train(settings: str, out: str, plain: bool) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    if plain:
        save = RunState.save

        def save_both(self: RunState, run: Path) -> None:
            parts = self.model.state_dict(), self.ema.state_dict(), self.optimizer.state_dict()
            torch.save(parts, run / "plain.pt")
            save(self, run)

        RunState.save = save_both  # type: ignore[method-assign]
    run(Settings.model_validate_json(settings), Path(out))


def started(settings: Settings, out: Path, plain: bool) -> Any:
    process = PROCESSES.Process(target=train, args=(settings.model_dump_json(), str(out), plain))
    process.start()
    return process


def whole(out: Path) -> bool:
    """Whether all that bears a final name can be read; raises what says that it cannot."""
    found = checkpoints(out)
    for directory in found:
        load_state(directory)
    # A checkpoint comes with its model; the best one comes with the first validation.
    for name, due in (("model", bool(found)), ("best", False)):
        if due or looks_like_model(str(out / name)):
            load_model(out / name)
    read(out / "log.jsonl")
    return bool(found)


def plain_is_lost(out: Path) -> bool:
    if not (out / "plain.pt").exists():
        return False
    try:
        torch.load(out / "plain.pt", weights_only=True)
    except Exception:  # whatever it makes of half a file
        return True
    return False


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def kill_test(kills: int, folder: Path, seed: int = 0, plain: bool = False) -> dict[str, Any]:
    """Counts of kills, of what they met and of what they cost."""
    settings, draws = settings_of(folder), random.Random(seed)
    PROCESSES.Process().start()  # has everything imported before the clock runs
    began = time.monotonic()
    process = started(settings, folder / "undisturbed", plain)
    process.join()
    duration = time.monotonic() - began
    counts = dict.fromkeys(
        ("kills", "while_saving", "before_the_first_checkpoint", "unreadable", "plain_unreadable"), 0
    )
    finished = identical = 0
    faults: list[str] = []
    while counts["kills"] < kills:
        out = folder / f"run-{finished}"
        while True:
            process, began = started(settings, out, plain), time.monotonic()
            process.join(draws.uniform(0, duration / 3) if counts["kills"] < kills else None)
            if process.exitcode is not None:
                duration = min(duration, 3 * (time.monotonic() - began))  # or a slow first run would spare all others
                break
            process.kill()
            process.join()
            counts["kills"] += 1
            counts["while_saving"] += any(out.rglob(".*.????????"))
            counts["plain_unreadable"] += plain_is_lost(out)
            try:
                counts["before_the_first_checkpoint"] += not whole(out)
            except Exception as error:
                counts["unreadable"] += 1
                faults.append(f"{type(error).__name__}: {error}")
        assert process.exitcode == 0, f"{out}: ended with {process.exitcode}"
        finished += 1
        identical += weights(out) == weights(folder / "undisturbed")
    return {**counts, "finished_runs": finished, "identical_to_undisturbed": identical, "faults": faults}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = kill_test(arguments.kills, Path(folder), arguments.seed, plain=True)
    result = {
        "seed": arguments.seed,
        "steps": STEPS,
        "machine": platform.machine(),
        "torch": torch.__version__,
        **result,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
