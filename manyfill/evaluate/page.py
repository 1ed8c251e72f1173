"""`report.html`: one self-contained page for people, from a report, its plots and sheets of fills."""

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from manyfill import html

HEADLINE = (
    ("psnr_mean", "PSNR of the mean, dB", 2),
    ("psnr_one", "of one fill", 2),
    ("psnr_best", "of the best", 2),
    ("ssim_mean", "SSIM of the mean", 3),
    ("crps", "CRPS, levels", 2),
    ("energy", "energy score, levels", 2),
    ("coverage.90", "90 % covers", 3),
    ("bits_per_dim", "bits/dim", 3),
    ("bits_per_dim_k", "K samples", 3),
    ("seam_ratio", "seam", 2),
    ("diversity", "diversity, levels", 1),
    ("lpips_mean", "LPIPS of the mean", 3),
    ("lpips_one", "of one fill", 3),
)
ABOUT = """Every figure is over the hole's pixels only and is a mean over {count} pictures, with its 95 % bootstrap
interval below it. {samples} fills a picture, {bound_samples} samples for the K-sample bound. CRPS and the energy score
are proper scores: for a method that gives one answer they are its absolute and its Euclidean error, so that all rows
can be compared; lower is better. Seam is the step across the hole's border relative to the true picture's: 1 is ideal.
The 90 % interval is ideal where it covers 0.9 of the hole's values."""
PLOTS = {
    "crps": "Error of every method with its interval; lower is better.",
    "coverage": "How much of the truth the central intervals cover; on the line the fills mean what they say.",
    "ranks": "Where the truth ranks among the fills; level for a calibrated model, a bowl for too narrow fills.",
    "reliability": "The error against the deviation that the fills claim; on the line the uncertainty map is right.",
    "levels": "What each latent level carries, and how far it alone moves a fill.",
}


def page(report: dict[str, Any], plots: dict[str, str], sheets: dict[str, str], recipes: Mapping[str, str]) -> str:
    """The document; `plots` are SVGs by name, `sheets` data URLs of pictures by caption, `recipes` texts by title."""
    settings = report["settings"]
    about = f"<p>Pictures: {escape(', '.join(settings['data']))}. {ABOUT.format(**settings)}</p>"
    parts = [about, *(_memorisation(space, check) for space, check in report.get("memorisation", {}).items())]
    parts += [_glance(name, model["masks"], report["baselines"]) for name, model in report["models"].items()]
    for name, kinds in report["differences"].items():
        parts.append(_differences(name, next(iter(report["models"])), kinds))
    parts += ["<section><h2>Plots</h2>", *(_plot(name, svg) for name, svg in plots.items()), "</section>"]
    if sheets:
        pictures = "".join(html.picture(source, caption, caption) for caption, source in sheets.items())
        parts.append(f"<section><h2>Fills</h2>{pictures}</section>")
    parts += [_table(report, kind) for kind in settings["masks"]]
    parts += [_sets(report["sets"])] if "sets" in report else []
    parts += [_calibration(name, model["masks"], settings) for name, model in report["models"].items()]
    parts += [
        f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
        for title, text in recipes.items()
    ]
    return html.page("How good the fills are", "\n".join(parts))


def _glance(name: str, kinds: dict[str, Any], baselines: dict[str, Any]) -> str:
    """A model beside the best other method, in one row for each kind of hole."""

    def best(kind: str, key: str, digits: int, better: Callable[..., str]) -> str:
        found = {other: method["masks"][kind] for other, method in baselines.items()}
        if not found:
            return ""
        other = better(found, key=lambda one: found[one][key]["mean"])
        return f"{escape(other)} {_cell(found[other][key], digits)}"

    lines = [
        [
            escape(kind),
            _cell(row["crps"], 2),
            best(kind, "crps", 2, min),
            _cell(row["psnr_mean"], 2),
            best(kind, "psnr_mean", 2, max),
            _cell(estimate_of(row, "coverage.90"), 3),
            _cell(row["bits_per_dim"], 3),
        ]
        for kind, row in kinds.items()
    ]
    head = ["holes", "CRPS, levels", "best other", "PSNR of the mean, dB", "best other", "90 % covers", "bits/dim"]
    return f"<section><h2>{escape(name)} at a glance</h2>{html.table(head, lines)}</section>"


def _table(report: dict[str, Any], kind: str) -> str:
    methods = report["models"] | report["baselines"]
    rows = {name: method["masks"][kind] for name, method in methods.items()}
    shown = [column for column in HEADLINE if any(estimate_of(row, column[0]) for row in rows.values())]
    head = ["", *(escape(label) for _, label, _ in shown)]
    lines = [
        [escape(name), *(_cell(estimate_of(row, key), digits) for key, _, digits in shown)]
        for name, row in rows.items()
    ]
    count = next(iter(rows.values()))["count"]
    return f"<section><h2>Holes: {escape(kind)}</h2>{html.table(head, lines, f'{count} pictures')}</section>"


def _differences(name: str, base: str, kinds: dict[str, Any]) -> str:
    shown = [column for column in HEADLINE if any(estimate_of(row, column[0]) for row in kinds.values())]
    head = ["", *(escape(label) for _, label, _ in shown)]
    lines = [
        [escape(kind), *(_cell(estimate_of(row, key), digits) for key, _, digits in shown)]
        for kind, row in kinds.items()
    ]
    title = f"{escape(name)} minus {escape(base)}"
    return f"<section><h2>{title}</h2>{html.table(head, lines, 'the same pictures and holes, paired')}</section>"


def _sets(sets: dict[str, Any]) -> str:
    lines = [
        [f"{escape(name)}, {escape(kind)}", f"{found['fid']:.2f}", f"{1000 * found['kid']:.2f}"]
        for name, kinds in sets.items()
        for kind, found in kinds.items()
    ]
    return f"<section><h2>Whole sets</h2>{html.table(['', 'FID', '1000 KID'], lines)}</section>"


def _calibration(name: str, kinds: dict[str, Any], settings: dict[str, Any]) -> str:
    """What the central intervals cover, by kind of hole and by its size."""
    found = list(kinds.items())
    for kind, row in kinds.items():
        found += [(f"{kind}, {part['from']:.0%} to {part['to']:.0%} missing", part) for part in row["by_hole_size"]]
    levels = settings["levels"]
    lines = [
        [escape(title), str(row["count"]), *(_cell(estimate_of(row, f"coverage.{level}"), 3) for level in levels)]
        for title, row in found
    ]
    head = ["holes", "pictures", *(f"wanted {share:.3f}" for share in levels.values())]
    caption = "the share of hole values within the central interval of the fills"
    if settings["calibration_pictures"]:
        caption += f"; calibrated on {settings['calibration_pictures']} other pictures of the same data"
    return f"<section><h2>Calibration of {escape(name)}</h2>{html.table(head, lines, caption)}</section>"


def _memorisation(space: str, check: dict[str, Any]) -> str:
    verdict = f"Memorisation in {escape(space)}: <strong>{escape(check['verdict'])}</strong>."
    share = f"{check['copied']:.1%} of the fills of {check['judged']} pictures lie as near to one training picture as a"
    rest = (
        f"copy would; {check['doubles']} more pictures have a double among the training pictures and were not judged."
    )
    return f"<p>{verdict} {share} {rest}</p>"


def estimate_of(row: dict[str, Any], key: str) -> dict[str, float] | None:
    """A figure of a report's row by its name, "coverage.90" for that of a level; None where it does not apply."""
    group, _, last = key.rpartition(".")
    return (row.get(group, {}) if group else row).get(last)


def _cell(value: dict[str, float] | None, digits: int) -> str:
    if value is None:
        return ""
    mean, low, high = (f"{value[end]:.{digits}f}" for end in ("mean", "low", "high"))
    return f"{mean}<br><small>{low} to {high}</small>"


def _plot(name: str, svg: str) -> str:
    kind, _, model = name.partition("-")
    caption = f"{escape(model)}: {PLOTS[kind]}" if model else PLOTS[kind]
    return f'<figure><div class="plot">{svg}</div><figcaption>{caption}</figcaption></figure>'
