"""The page about a training run, written once or as long as the run goes on: the command `manyfill diagnose`."""

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

from manyfill import html
from manyfill.diagnose.curves import draw_all, level_names
from manyfill.errors import DataError
from manyfill.files import make_folder, save_text
from manyfill.plots import write
from manyfill.train.log import Record, read
from manyfill.train.settings import Settings, load_saved

PAUSE = 10.0
CAPTIONS = {
    "bound": "The bound, its pixel term, and the gradient's norm before clipping.",
    "levels": "KL of each level. Training batches have all kinds of holes and guides; training and validation pictures "
    "(train.fit_pictures) are measured alike, by the averaged weights in centre holes.",
    "latents": "Channels whose KL is over 0.01 nats, and how wide posteriors lie compared with what priors say.",
}


def diagnose(run: Path, live: bool, pause: float = PAUSE) -> Path:
    """Write RUN/diagnostics, with `live` again and again until the run is over; returns its page. Raises ManyfillError.

    A browser that shows the page of a live run loads it anew by itself.
    """
    if not (run / "settings.json").exists():
        raise DataError(f"{run}: is no training run; name the --out of `manyfill train`")
    settings, out = load_saved(run / "settings.json"), run / "diagnostics"
    log = run / "log.jsonl"
    if not live and not read(log):
        raise DataError(f"{log}: nothing is logged yet; wait for the first steps, or give --live")
    make_folder(out)
    try:
        while live and not finished(records := read(log), settings):
            _write(out, records, settings, refresh=pause)
            time.sleep(pause)
    finally:
        _write(out, read(log), settings)
    return out / "index.html"


def finished(records: Sequence[Record], settings: Settings) -> bool:
    """Whether a run has come to its end, its last validation included."""
    if not records or records[-1]["kind"] != "validation":
        return False
    last, train = records[-1], settings.train
    return last["step"] >= train.steps if train.steps else last["elapsed"] >= 60 * (train.minutes or 0)


def _write(out: Path, records: Sequence[Record], settings: Settings, refresh: float | None = None) -> None:
    vectors = {name: write(figure, out, name) for name, figure in draw_all(records, settings.model.levels).items()}
    parts = [f"<p>{escape(_state(records, settings))}</p>", _table(records, settings)]
    parts += [
        f'<figure><div class="plot">{svg}</div><figcaption>{escape(CAPTIONS[name])}</figcaption></figure>'
        for name, svg in vectors.items()
    ]
    save_text(out / "index.html", html.page("Diagnostics", "\n".join(parts), refresh))


def _state(records: Sequence[Record], settings: Settings) -> str:
    if not records:
        return "Nothing is logged yet."
    last, train = records[-1], settings.train
    skipped = next((r["skipped_steps"] for r in reversed(records) if r["kind"] == "train"), 0)
    end = f"{train.steps} steps" if train.steps else f"{train.minutes:g} minutes"
    return f"Step {last['step']}, {last['elapsed'] / 60:.1f} minutes, of {end}; {skipped} steps skipped."


def _table(records: Sequence[Record], settings: Settings) -> str:
    """Each level at the last validation, next to the training pictures, or to the last training batches."""
    kinds = {record["kind"]: record for record in records}  # the last of each
    if "validation" not in kinds:
        return ""
    own, other = kinds["validation"], kinds.get("fit", kinds.get("train", {}))
    head = ["", "KL in training, bits/dim", "in validation", "gap", "active channels", "misfit"]
    rows = []
    for number, (name, level) in enumerate(
        zip(level_names(settings.model.levels), settings.model.levels, strict=True), 1
    ):
        key = f"{number:02d}"
        before, after = other.get(f"kl_{key}"), own.get(f"kl_{key}")
        gap = None if before is None or after is None else after - before
        active, misfit = own.get(f"active_{key}"), own.get(f"misfit_{key}")
        of = "" if active is None else f"{active:.0f} of {level.latent}"
        rows.append([name, *map(_number, (before, after, gap)), of, _number(misfit)])
    return html.table(head, rows, f"step {own['step']}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
