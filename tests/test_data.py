"""The training stream: the same picture, crop, mask and guide at each position, whoever reads them and from where."""

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import patches, png, write_folder, write_tar
from PIL import Image
from skimage import data as samples_of_skimage

from manyfill import images
from manyfill.data import (
    Batch,
    StreamConfig,
    TrainingSamples,
    batches,
    collate,
    fixed_batches,
    open_source,
)
from manyfill.data.folder import EXTENSIONS
from manyfill.data.loader import coarse_guide, tile, with_channels
from manyfill.decode import ALLOWED_FORMATS
from manyfill.errors import ConfigError, DataError, PictureError
from manyfill.masks import MaskFolder

SIZE = 16
CONFIG = StreamConfig(size=SIZE, seed=7)


@pytest.fixture
def files() -> dict[str, bytes]:
    """Seven small pictures, one in a subfolder, the first with two captions."""
    found = {f"{index:02}.png": png(pixels) for index, pixels in enumerate(patches(6))}
    found["00.txt"] = b"a ginger cat\n\n  green eyes \n"
    found["deep/er/06.png"] = png(patches(7)[6])
    return found


@pytest.fixture
def folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    return write_folder(tmp_path / "pictures", files)


def same(a: Batch, b: Batch) -> bool:
    tensors = all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("x", "m", "guide", "guide_present"))
    return tensors and (a.captions, a.names, a.skipped) == (b.captions, b.names, b.skipped)


def take(samples: TrainingSamples, count: int, **options: int) -> list[Batch]:
    stream = batches(samples, batch_size=3, **{"workers": 0, **options})
    return list(itertools.islice(stream, count))


# Sources


def test_folder_is_read_recursively_in_order_with_captions(folder: Path) -> None:
    write_folder(folder, {"notes.md": b"x", ".hidden.png": b"x", "._01.png": b"x"})
    source = open_source(folder)
    names = [os.path.relpath(source.name(i), folder) for i in range(len(source))]
    assert names == ["00.png", "01.png", "02.png", "03.png", "04.png", "05.png", os.path.join("deep", "er", "06.png")]
    assert source[0].captions == ["a ginger cat", "green eyes"]
    assert source[1].captions == []
    assert all(np.array_equal(source[i].pixels, pixels) for i, pixels in enumerate(patches(6)))


@pytest.mark.parametrize("prefix", ["", "./"])
def test_tar_and_folder_give_the_same(folder: Path, files: dict[str, bytes], tmp_path: Path, prefix: str) -> None:
    shard = write_tar(tmp_path / "shard.tar", files, prefix)
    from_folder, from_tar = open_source(folder), open_source(shard)
    assert len(from_folder) == len(from_tar) == 7
    for i in reversed(range(7)):  # not in the order in which the bytes lie
        assert np.array_equal(from_folder[i].pixels, from_tar[i].pixels)
        assert from_folder[i].captions == from_tar[i].captions
    one, other = (take(TrainingSamples(source, CONFIG), 4) for source in (from_folder, from_tar))
    assert all(torch.equal(a.x, b.x) and torch.equal(a.m, b.m) for a, b in zip(one, other, strict=True))


def test_paths_are_joined_and_a_folder_may_hold_shards(folder: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for name in ("b.tar", "a.tar"):
        write_tar(tmp_path / "shards" / name, files)
    source = open_source(folder, tmp_path / "shards")
    assert len(source) == 21
    assert [Path(source.name(i)).parts[-2] for i in (0, 7, 14)] == ["pictures", "a.tar", "b.tar"]
    assert np.array_equal(source[20].pixels, source[6].pixels)
    with pytest.raises(IndexError):
        source[21]


def cut_tar(path: Path) -> Path:
    write_tar(path, {f"{i}.png": png(p) for i, p in enumerate(patches(3))})
    path.write_bytes(path.read_bytes()[:700])
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root / "absent", "no such"),
        (lambda root: write_folder(root / "bare", {"a.md": b"x"}), "no pictures"),
        (lambda root: write_tar(root / "bare.tar", {"a.json": b"x"}), "no pictures"),
        (lambda root: write_folder(root, {"a.zip": b"x"}) / "a.zip", "neither"),
        (lambda root: write_folder(root, {"a.tar": b"not a tar" * 200}) / "a.tar", "tar"),
        (lambda root: cut_tar(root / "cut.tar"), "tar"),
    ],
)
def test_unusable_paths_are_refused_in_one_line_that_names_them(
    tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        open_source(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_every_extension_taken_is_of_an_allowed_format() -> None:
    formats = Image.registered_extensions()
    assert {formats[extension] for extension in EXTENSIONS} <= set(ALLOWED_FORMATS)


# The stream


def test_sample_depends_on_seed_and_position_alone(folder: Path) -> None:
    forward, backward = TrainingSamples(open_source(folder), CONFIG), TrainingSamples(open_source(folder), CONFIG)
    there = [forward[p] for p in range(15)]
    back = [backward[p] for p in reversed(range(15))][::-1]
    assert same(collate(there), collate(back))
    other = TrainingSamples(open_source(folder), StreamConfig(size=SIZE, seed=8))
    assert not torch.equal(collate([other[p] for p in range(15)]).m, collate(there).m)


def test_each_epoch_is_another_permutation(folder: Path) -> None:
    samples = TrainingSamples(open_source(folder), CONFIG)
    epochs = [[samples[7 * epoch + i].name for i in range(7)] for epoch in range(3)]
    assert all(sorted(names) == sorted(epochs[0]) and len(set(names)) == 7 for names in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_workers_change_nothing(folder: Path) -> None:
    write_folder(folder, {"broken.png": b"not a picture"})
    samples = TrainingSamples(open_source(folder), CONFIG)
    alone = take(samples, 6)
    for workers in (1, 2):
        assert all(same(a, b) for a, b in zip(alone, take(samples, 6, workers=workers), strict=True))


@pytest.mark.parametrize("workers", [0, 2, 4])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_shares_of_all_ranks_make_up_the_batches_of_one_process(folder: Path, world: int, workers: int) -> None:
    samples = TrainingSamples(open_source(folder), CONFIG)
    whole = [collate([samples[4 * step + i] for i in range(4)]) for step in range(2, 6)]  # two epochs of seven
    shares = [
        itertools.islice(batches(samples, 4, start_step=2, workers=workers, rank=rank, world=world), 4)
        for rank in range(world)
    ]
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert [len(part.names) for part in parts] == [4 // world] * world
        assert same(batch, joined(parts))


def joined(parts: Sequence[Batch]) -> Batch:
    tensors = (torch.cat([getattr(part, k) for part in parts]) for k in ("x", "m", "guide", "guide_present"))
    lists: list[list] = [[v for part in parts for v in getattr(part, k)] for k in ("captions", "names", "skipped")]
    return Batch(*tensors, *lists)


def test_a_batch_that_cannot_be_shared_out_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size=6: .* 4 processes; make it a multiple of 4"):
        next(batches(TrainingSamples(open_source(folder), CONFIG), 6, rank=1, world=4))


def test_resumed_stream_equals_uninterrupted_one(folder: Path) -> None:
    whole = take(TrainingSamples(open_source(folder), CONFIG), 6)
    resumed = take(TrainingSamples(open_source(folder), CONFIG), 2, start_step=4)
    assert all(same(a, b) for a, b in zip(whole[4:], resumed, strict=True))


def test_stream_leaves_the_global_generator_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    take(TrainingSamples(open_source(folder), CONFIG), 2)
    assert torch.equal(before, torch.get_rng_state())


def test_batch_has_the_promised_shapes_and_ranges(folder: Path) -> None:
    batch = take(TrainingSamples(open_source(folder), CONFIG), 1)[0]
    assert batch.x.shape == batch.guide.shape == (3, 3, SIZE, SIZE)
    assert batch.m.shape == (3, 1, SIZE, SIZE) and batch.guide_present.shape == (3,)
    assert {t.dtype for t in (batch.x, batch.m, batch.guide, batch.guide_present)} == {torch.float32}
    assert batch.x.abs().max() <= 1
    assert torch.equal(batch.known, torch.where(batch.m == 1, 0.0, batch.x))


def test_masks_are_binary_and_follow_the_mixture(folder: Path) -> None:
    samples = TrainingSamples(open_source(folder), CONFIG)
    masks = torch.stack([samples[p].m for p in range(40)])
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert len({m.numpy().tobytes() for m in masks}) > 20
    only_centre = TrainingSamples(open_source(folder), StreamConfig(size=SIZE, masks={"centre": 2.0, "brush": 0.0}))
    assert len({only_centre[p].m.numpy().tobytes() for p in range(10)}) == 1


def test_users_own_masks_are_drawn(folder: Path, tmp_path: Path) -> None:
    hole = np.zeros((SIZE, SIZE), np.uint8)
    hole[2:5, 2:5] = 255
    masks = MaskFolder(write_folder(tmp_path / "masks", {"one.png": png(hole)}))
    config = StreamConfig(size=SIZE, masks={"folder": 1.0})
    samples = TrainingSamples(open_source(folder), config, masks)
    assert all(samples[p].m.sum() == 9 for p in range(5))
    with pytest.raises(ConfigError, match="folder"):
        TrainingSamples(open_source(folder), config)


@pytest.mark.parametrize(("probability", "present"), [(0.0, {0.0}), (1.0, {1.0}), (0.5, {0.0, 1.0})])
def test_guide_is_absent_or_near_the_picture(folder: Path, probability: float, present: set[float]) -> None:
    samples = TrainingSamples(open_source(folder), StreamConfig(size=SIZE, guide_probability=probability))
    batch = collate([samples[p] for p in range(30)])
    assert set(batch.guide_present.tolist()) == present
    there = batch.guide_present == 1
    assert not batch.guide[~there].any()
    error = (batch.guide - batch.x)[there].abs().mean(dim=(1, 2, 3))
    spread = (batch.x - batch.x.mean(dim=(2, 3), keepdim=True))[there].abs().mean(dim=(1, 2, 3))
    assert (error > 0).all() and (error < spread).all()
    assert len(error) == 0 or (error / spread).mean() < 0.6


def test_guide_of_a_smooth_picture_is_that_picture() -> None:
    ramp = np.repeat(np.arange(0, 240, 8, dtype=np.uint8)[None], 30, axis=0)[:, :, None]
    assert np.abs(coarse_guide(ramp, 2).astype(int) - ramp)[:, 4:-4].max() <= 1
    flat = np.full((9, 9, 3), 77, np.uint8)
    assert np.array_equal(coarse_guide(flat, 4), flat)


def test_tile_of_the_right_size_is_the_whole_picture_and_a_large_one_is_zoomed_into() -> None:
    exact = patches(1, SIZE, SIZE)[0]
    assert np.array_equal(tile(exact, SIZE, np.random.default_rng(0)), exact)
    # In a ramp from left to right the difference of neighbours tells the side of the tile.
    ramp = np.repeat(np.linspace(0, 255, 256).astype(np.uint8)[None], 200, axis=0)[:, :, None]
    tiles = [tile(ramp, SIZE, np.random.default_rng(seed)) for seed in range(200)]
    assert all(t.shape == (SIZE, SIZE, 1) for t in tiles)
    sides = np.array([(float(t[8, 12, 0]) - float(t[8, 4, 0])) * SIZE / 8 for t in tiles])
    assert sides.min() < 1.5 * SIZE and 150 < sides.max() < 215
    assert abs(np.median(sides) - np.sqrt(SIZE * 200)) < 15  # log-uniform
    assert np.ptp([t[8, 0, 0] for t in tiles]) > 150


@pytest.mark.parametrize("shape", [(5, 5), (4, 40), (40, 4), (1, 1), (SIZE, 30)])
def test_tile_of_a_small_or_narrow_picture(shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 9, np.uint8)
    for rng in (None, np.random.default_rng(1)):
        assert np.array_equal(tile(pixels, SIZE, rng), np.full((SIZE, SIZE, 3), 9))


def test_without_augmentation_the_centre_is_taken_unflipped(tmp_path: Path) -> None:
    pixels = patches(1, SIZE, SIZE + 8)[0]
    source = open_source(write_folder(tmp_path / "one", {"a.png": png(pixels)}))
    plain = TrainingSamples(source, StreamConfig(size=SIZE, augment=False, flip=False))
    centre = images.to_tensor(np.ascontiguousarray(pixels[:, 4:-4]))
    assert all(torch.equal(plain[p].x, centre) for p in range(8))
    flipped = TrainingSamples(source, StreamConfig(size=SIZE, augment=False))
    seen = [torch.equal(flipped[p].x, centre) for p in range(20)]
    assert 3 < sum(seen) < 17
    assert all(torch.equal(flipped[p].x, centre if seen[p] else centre.flip(-1)) for p in range(20))


def test_grey_and_colour_meet_the_channels_asked_for(tmp_path: Path) -> None:
    grey, colour = samples_of_skimage.camera()[:SIZE, :SIZE], patches(1, SIZE, SIZE)[0]
    source = open_source(write_folder(tmp_path / "two", {"0.png": png(grey), "1.png": png(colour)}))
    (in_colour,) = fixed_batches(source, SIZE, 3, seed=0, kind="centre", batch_size=2)
    assert torch.equal(in_colour.x[0], images.to_tensor(grey[:, :, None]).expand(3, -1, -1))
    assert torch.equal(in_colour.x[1], images.to_tensor(colour))
    (in_grey,) = fixed_batches(source, SIZE, 1, seed=0, kind="centre", batch_size=2, guide=True)
    assert in_grey.x.shape == in_grey.guide.shape == (2, 1, SIZE, SIZE)
    assert torch.equal(in_grey.x[0], images.to_tensor(grey[:, :, None]))
    luma = np.array([0.299, 0.587, 0.114])
    assert np.abs(with_channels(colour, 1)[:, :, 0] - colour @ luma).max() <= 1
    samples = TrainingSamples(source, StreamConfig(size=SIZE, channels=1))
    assert collate([samples[p] for p in range(6)]).x.shape[1] == 1


def test_captions_stay_with_their_picture(folder: Path) -> None:
    for batch in take(TrainingSamples(open_source(folder), CONFIG), 3, workers=1):
        for name, captions in zip(batch.names, batch.captions, strict=True):
            assert captions == (["a ginger cat", "green eyes"] if Path(name).name == "00.png" else [])


# Pictures that cannot be read


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_pictures_are_replaced_and_named_or_refused(folder: Path, files: dict[str, bytes], workers: int) -> None:
    write_folder(folder, {"01.png": b"not a picture", "02.png": files["02.png"][:200]})
    source = open_source(folder)
    seen = take(TrainingSamples(source, CONFIG), 7, workers=workers)  # three epochs of seven
    names = [name for batch in seen for name in batch.names]
    reports = [skip for batch in seen for skip in batch.skipped]
    assert {Path(name).name for name in names} == {"00.png", "03.png", "04.png", "05.png", "06.png"}
    assert names.count(str(folder / "03.png")) == 9  # thrice for itself, thrice for each of the broken ones
    assert {Path(skip.name).name for skip in reports} == {"01.png", "02.png"}
    assert len(reports) == 3 * 3
    assert all(Path(skip.name).name in skip.reason and "\n" not in skip.reason for skip in reports)
    with pytest.raises(PictureError, match=r"0[12]\.png") as caught:
        take(TrainingSamples(source, CONFIG, strict=True), 7, workers=workers)
    assert "\n" not in str(caught.value)


def test_pictures_that_are_all_broken_are_an_error(tmp_path: Path) -> None:
    source = open_source(write_folder(tmp_path / "bad", {"a.png": b"", "b.png": b"x"}))
    with pytest.raises(DataError, match="none of the 2"):
        TrainingSamples(source, CONFIG)[0]
    with pytest.raises(DataError, match="no validation picture"):
        list(fixed_batches(source, SIZE, 3, 0, "centre", 2))


# Validation


def test_fixed_batches_are_fixed_ordered_and_complete(folder: Path) -> None:
    source = open_source(folder)

    def read(limit: int | None = None, guide: bool = False) -> list[Batch]:
        return list(fixed_batches(source, SIZE, 3, 1, "brush", 3, limit, guide))

    first, second = read(), read()
    assert [len(batch.names) for batch in first] == [3, 3, 1]
    assert [name for batch in first for name in batch.names] == [source.name(i) for i in range(7)]
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert not any(batch.guide.any() or batch.guide_present.any() for batch in first)
    assert len({m.numpy().tobytes() for batch in first for m in batch.m}) == 7
    limited = read(limit=4)
    assert same(limited[0], first[0]) and len(limited[1].names) == 1
    assert all(batch.guide_present.all() and batch.guide.any() for batch in read(guide=True))


def test_fixed_batches_leave_broken_pictures_out_and_keep_the_others_masks(folder: Path) -> None:
    source = open_source(folder)
    whole = list(fixed_batches(source, SIZE, 3, 1, "brush", 4))
    write_folder(folder, {"01.png": b"", "deep/er/06.png": b""})
    part = list(fixed_batches(source, SIZE, 3, 1, "brush", 4))
    assert [len(batch.names) for batch in part] == [4, 1]
    assert torch.equal(part[0].m[1:3], whole[0].m[2:4])
    assert [Path(skip.name).name for batch in part for skip in batch.skipped] == ["01.png", "06.png"]
    with pytest.raises(PictureError, match=r"01\.png"):
        list(fixed_batches(source, SIZE, 3, 1, "brush", 4, strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 2}, "channels=2"),
        ({"size": 3}, "size=3"),
        ({"guide_probability": 1.5}, "guide_probability=1.5"),
        ({"masks": {"center": 1.0}}, "centre"),
        ({"masks": {"centre": -1.0}}, "centre"),
        ({"masks": {"centre": 0.0}}, "above 0"),
        ({"masks": {}}, "above 0"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        StreamConfig(**{"size": SIZE, **options})  # type: ignore[arg-type]
