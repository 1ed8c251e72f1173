"""`manyfill fill-many`. As in cli.py, nothing heavy is imported before the command runs."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from manyfill.flags import Count, Json

if TYPE_CHECKING:
    from manyfill.bulk.fill import Row


def fill_many(
    pictures: Path,
    out: Path,
    /,
    *,
    masks: Path | None = None,
    images: Path | None = None,
    captions: bool = False,
    guidance: float = 1.0,
    n: Count = 8,
    seed: int = 0,
    temperature: str = "1",
    model: str = "default",
    device: str | None = None,
    max_pixels: int | None = None,
    batch: int | None = None,
    workers: int | None = None,
    sheets: bool = False,
    quantiles: bool = False,
    latents: bool = False,
    format: str | None = None,
    quality: int | None = None,
    strict: bool = False,
    ray: bool = False,
    ray_address: str | None = None,
    actors: int | None = None,
    as_json: Json = False,
) -> None:
    """Fill the holes of all PICTURES n times each; the same command again goes on where it stopped.

    A picture a/cat.jpg has its fills in OUT/a/cat, as `manyfill fill` would write them; OUT/report-*.jsonl has a line
    for each. Several processes share the work if RANK and WORLD_SIZE are set, as torchrun does.

    Parameters
    ----------
    pictures
        A folder of pictures (read recursively), of tar shards or both, one shard, or a list of pictures with captions:
        a COCO JSON, or a CSV of two columns.
    out
        Where to write.
    masks
        A folder or shard with a mask of each picture's name, or one mask file for all; white where the picture is
        missing. Left out, transparent pixels are missing.
    images
        Folder of the pictures that a JSON or CSV lists; looked for beside it if left out.
    captions
        Tell the model the captions that come with PICTURES, of each picture the first (docs/captions.md).
    guidance
        How closely fills follow the captions: 1 as the model does, more to exaggerate, 0 hardly.
    n
        How many fills of each picture.
    seed
        The same seed draws the same fills.
    temperature
        Spread of the latents: 1 draws from the model as it is, 0 takes their means. Or one for each level, coarsest
        first, such as 0.5,0.5,1: the last stands for all finer ones too.
    model
        A model directory, a Hugging Face hub id, "default", or another shipped model's name.
    device
        Where to compute, such as cpu or cuda:1; if left out, each process takes a GPU of its own where there is one.
    max_pixels
        Skip larger pictures; 40 million if left out.
    batch
        How many fills the model draws at once, of several pictures where n is smaller; 32 if left out. 1 takes one
        picture at a time.
    workers
        Threads that read and write while the model draws; 2 if left out. Large pictures on many cores are worth more.
    sheets
        Write sheet.png for each picture too.
    quantiles
        Write the 5, 50 and 95 % quantiles q05, q50 and q95 of each picture too.
    latents
        Write fill-00.safetensors, ... of each picture too, for reroll and blend.
    format
        png, jpeg, webp, tiff or npy instead of each picture's own format.
    quality
        Of JPEG and WebP, 1 to 100; if left out, as each was coded, else JPEG at 95 and WebP without loss.
    strict
        Make the first picture that cannot be filled an error instead of skipping it.
    ray
        Spread the work over Ray actors, each with the model: here, or on the cluster of --ray-address.
    ray_address
        Address of a running Ray cluster, such as auto.
    actors
        How many Ray actors; one for each GPU, or CPU, if left out.
    as_json
        Print the summary to read by machine.
    """
    from manyfill.bulk.job import BATCH, WORKERS, Job
    from manyfill.bulk.run import fill_many
    from manyfill.encode import Encoding
    from manyfill.errors import ConfigError
    from manyfill.images import DEFAULT_MAX_PIXELS
    from manyfill.inputs import Sampling, parse_temperature
    from manyfill.rank import Rank

    job = Job(
        pictures=pictures,
        out=out,
        masks=masks,
        images=images,
        captions=captions,
        guidance=guidance,
        sampling=Sampling(n, seed, parse_temperature(temperature)),
        model=model,
        device=device,
        max_pixels=DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels,
        batch=BATCH if batch is None else batch,
        workers=WORKERS if workers is None else workers,
        sheets=sheets,
        quantiles=quantiles,
        latents=latents,
        encoding=Encoding(format, quality),
        strict=strict,
    )
    rank, elsewhere = Rank.of(), None
    if ray or ray_address:
        from manyfill.bulk.cluster import Cluster

        if rank.size > 1:
            raise ConfigError("--ray: spreads the work itself; unset RANK and WORLD_SIZE, or leave it out")
        elsewhere = Cluster(ray_address, actors).fill
    elif actors is not None:
        raise ConfigError("--actors: are Ray's; give --ray too, or leave it out")
    summary = fill_many(job, rank, _progress, elsewhere)
    print(json.dumps(summary.record(), indent=2) if as_json else summary)


def _progress(rows: Iterable["Row"], pictures: int) -> Iterable["Row"]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(rows, "pictures", pictures, transient=True, console=console, disable=not console.is_terminal)
