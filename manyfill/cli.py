"""The command line. Nothing heavy is imported before a command needs it, so that --help answers at once."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from manyfill import (
    __version__,
    cli_benchmark,
    cli_data,
    cli_diagnose,
    cli_export,
    cli_fill,
    cli_hub,
    cli_info,
    cli_steer,
    cli_web,
)
from manyfill.bulk.command import fill_many
from manyfill.errors import ElsewhereError, ManyfillError
from manyfill.flags import Count

BAD_INPUT, INTERRUPTED = 2, 130
WITHOUT_TORCH = (
    "error: this takes torch, which is not installed; pip install 'manyfill[torch]', or fill with an exported model"
)
Assignments = Annotated[list[str] | None, Parameter(name="--set")]

app = App(
    name="manyfill",
    version=__version__,
    help="Many plausible fills for the hole in a picture, and how sure each pixel is.",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
app.command(cli_benchmark.benchmark)
app.command(cli_data.shard)
app.command(cli_data.data)
app.command(cli_diagnose.levels)
app.command(cli_diagnose.diagnose)
app.command(cli_export.export)
app.command(cli_fill.fill)
app.command(fill_many)
app.command(cli_info.info)
app.command(cli_hub.push)
app.command(cli_steer.reroll)
app.command(cli_steer.blend)
app.command(cli_web.serve)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (default: the process's own arguments) and return the exit code; errors take one line."""
    try:
        code = app(
            None if arguments is None else list(arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except ElsewhereError:
        return BAD_INPUT
    except (ManyfillError, CycloptsError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return BAD_INPUT
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print(WITHOUT_TORCH, file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # whoever was to read it, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python says so when it flushes
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


@app.command
def demo(*, out: Path = Path("demo"), n: Count = 8, model: str = "default", seed: int = 0) -> None:
    """Fill photographs that come with scikit-image and leave a page of the results.

    Parameters
    ----------
    out
        Folder for the page and its pictures.
    n
        How many fills of each photograph.
    model
        A model directory, a Hugging Face hub id, "default", or another shipped model's name.
    seed
        The same seed draws the same masks and fills.
    """
    from manyfill.demo import build

    page = build(out, n, model, seed, report=print)
    print(f"open {page}")


@app.command
def train(
    data: list[str] | None = None,
    /,
    *,
    out: Path,
    val: list[str] | None = None,
    preset: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    config: Path | None = None,
    assignments: Assignments = None,
    init: str | None = None,
    fork: Path | None = None,
    masks: str | None = None,
    captions: bool = False,
    seed: int | None = None,
    strict: bool = False,
) -> None:
    """Train on your own pictures; the same command again goes on where it stopped, Ctrl-C saves and ends.

    Under torchrun, any number of processes and machines train one model together.

    Parameters
    ----------
    data
        Folders of pictures (read recursively), tar shards, lists of pictures with captions (COCO .json, .csv); one or
        several.
    out
        Folder of the run; OUT/model is what fill --model takes.
    val
        Pictures held out to measure progress; if left out, one in 20 of DATA, at most 512.
    preset
        The model's make: tiny32, base64, base128, large256, tan2017, pixelvae64, multiscale64 or caption64; if left
        out, the one that the TOML file names, or base64.
    minutes
        End after so many minutes, validation included; 30 if neither this nor --steps is given.
    steps
        End after so many steps.
    config
        A TOML file of settings, as in configs/.
    assignments
        One setting, such as train.learning_rate=0.001; may be repeated. OUT/settings.json has all of them.
    init
        Start from the weights of this model (a directory, a hub id or a shipped name) instead of a preset's.
    fork
        Start from the weights and the settings of this run, but for what other flags and DATA change; OUT is a new run.
    masks
        A mask picture or a folder of them, instead of drawn masks.
    captions
        Learn to read the captions that come with DATA (docs/captions.md).
    seed
        Fixes everything drawn at random; 0 if left out.
    strict
        Make an unreadable picture an error instead of leaving it out.
    """
    from manyfill.train.distributed import joined
    from manyfill.train.loop import run
    from manyfill.train.settings import load

    with joined() as ranks:
        with ranks.together():
            settings = load(
                data or (),
                validation=val or (),
                preset=preset,
                init=init,
                fork=fork,
                config=config,
                assignments=assignments or (),
                minutes=minutes,
                steps=steps,
                masks=masks,
                seed=seed,
                strict=strict,
                captions=captions,
            )
        run(settings, out, ranks)


@app.command
def evaluate(
    models_and_data: list[str],
    /,
    *,
    out: Path,
    masks: str | None = None,
    mask_dir: Path | None = None,
    samples: int = 39,
    bound_samples: int = 64,
    limit: int | None = None,
    baselines: list[str] | None = None,
    calibrate: bool = False,
    training: list[str] | None = None,
    show: list[str] | None = None,
    lpips: Path | None = None,
    inception: Path | None = None,
    against: Path | None = None,
    workers: int | None = None,
    seed: int = 0,
) -> int:
    """Measure how good a model's fills are, and how far to trust them; several models are compared on the same holes.

    Writes report.html (to read), report.json, plots and rows to OUT; the same command again goes on where it stopped.
    Exit code 1 if a figure got worse than in the report of --against.

    Parameters
    ----------
    models_and_data
        Models (shipped names, directories, hub ids), then pictures: folders, tar shards, lists (COCO .json, .csv).
    out
        Folder of the report.
    masks
        Kinds of holes, comma-separated: centre, boxes, brush, scratches, pixels, outpaint, half (these if left out),
        large, all (nothing is known).
    mask_dir
        Masks of your own, a file or a folder; instead of the drawn ones, or with --masks besides.
    samples
        Fills of each picture; 39 gives intervals of exactly 50, 80, 90 and 95 %.
    bound_samples
        Samples of the likelihood bound.
    limit
        Take the first so many pictures; all if left out.
    baselines
        Other methods to compare with: opencv, biharmonic, mean (these if left out), nearest, gaussian,
        comma-separated, or 'cmd:PROGRAM {image} {mask} {out}'; may be repeated.
    calibrate
        First fit the model's temperatures on 32 pictures (half of a small set) spread over the data, which are
        then left out of the evaluation, and store them with the model.
    training
        The pictures the model was trained on, to check that fills are no copies.
    show
        Pictures to draw in the report, the first 8, instead of the best, median and worst of those evaluated.
    lpips
        Weights of the perceptual distance LPIPS, a safetensors file; without it the report says how to make one.
    inception
        Weights of the Inception network for FID and KID, likewise.
    against
        An earlier report.json to compare with.
    workers
        Processes that share the pictures; as many as the processor can keep busy if left out.
    seed
        The same seed draws the same holes and fills.
    """
    from manyfill.evaluate.command import Options, evaluate
    from manyfill.evaluate.run import DEFAULT_BASELINES
    from manyfill.locate import looks_like_model

    options = Options(
        models=tuple(word for word in models_and_data if looks_like_model(word)),
        data=tuple(Path(word) for word in models_and_data if not looks_like_model(word)),
        out=out,
        masks=masks,
        mask_dir=mask_dir,
        samples=samples,
        bound_samples=bound_samples,
        limit=limit,
        baselines=tuple(baselines or DEFAULT_BASELINES),
        calibrate=calibrate,
        training=tuple(map(Path, training or ())),
        show=tuple(map(Path, show or ())),
        lpips=lpips,
        inception=inception,
        against=against,
        workers=workers,
        seed=seed,
    )
    return evaluate(options, report=print)
