"""The training stream: the same picture, crop, mask and guide at each position, whoever reads them and from where."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import png, write_folder
from streams import CONFIG, SIZE, same, take

from manyfill.data import (
    Batch,
    StreamConfig,
    TrainingSamples,
    batches,
    collate,
    fixed_batches,
    open_source,
)
from manyfill.errors import ConfigError, DataError, PictureError
from manyfill.masks import MaskFolder


def test_sample_depends_on_seed_and_position_alone(seven: Path) -> None:
    forward, backward = TrainingSamples(open_source(seven), CONFIG), TrainingSamples(open_source(seven), CONFIG)
    there = [forward[p] for p in range(15)]
    back = [backward[p] for p in reversed(range(15))][::-1]
    assert same(collate(there), collate(back))
    other = TrainingSamples(open_source(seven), StreamConfig(size=SIZE, seed=8))
    assert not torch.equal(collate([other[p] for p in range(15)]).m, collate(there).m)


def test_each_epoch_is_another_permutation(seven: Path) -> None:
    samples = TrainingSamples(open_source(seven), CONFIG)
    epochs = [[samples[7 * epoch + i].name for i in range(7)] for epoch in range(3)]
    assert all(sorted(names) == sorted(epochs[0]) and len(set(names)) == 7 for names in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_workers_change_nothing(seven: Path) -> None:
    write_folder(seven, {"broken.png": b"not a picture"})
    samples = TrainingSamples(open_source(seven), CONFIG)
    alone = take(samples, 6)
    for workers in (1, 2):
        assert all(same(a, b) for a, b in zip(alone, take(samples, 6, workers=workers), strict=True))


@pytest.mark.parametrize("workers", [0, 2, 4])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_shares_of_all_ranks_make_up_the_batches_of_one_process(seven: Path, world: int, workers: int) -> None:
    samples = TrainingSamples(open_source(seven), CONFIG)
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


def test_a_batch_that_cannot_be_shared_out_is_refused(seven: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size=6: .* 4 processes; make it a multiple of 4"):
        next(batches(TrainingSamples(open_source(seven), CONFIG), 6, rank=1, world=4))


def test_resumed_stream_equals_uninterrupted_one(seven: Path) -> None:
    whole = take(TrainingSamples(open_source(seven), CONFIG), 6)
    resumed = take(TrainingSamples(open_source(seven), CONFIG), 2, start_step=4)
    assert all(same(a, b) for a, b in zip(whole[4:], resumed, strict=True))


def test_stream_leaves_the_global_generator_alone(seven: Path) -> None:
    before = torch.get_rng_state()
    take(TrainingSamples(open_source(seven), CONFIG), 2)
    assert torch.equal(before, torch.get_rng_state())


def test_batch_has_the_promised_shapes_and_ranges(seven: Path) -> None:
    batch = take(TrainingSamples(open_source(seven), CONFIG), 1)[0]
    assert batch.x.shape == batch.guide.shape == (3, 3, SIZE, SIZE)
    assert batch.m.shape == (3, 1, SIZE, SIZE) and batch.guide_present.shape == (3,)
    assert {t.dtype for t in (batch.x, batch.m, batch.guide, batch.guide_present)} == {torch.float32}
    assert batch.x.abs().max() <= 1
    assert torch.equal(batch.known, torch.where(batch.m == 1, 0.0, batch.x))


def test_masks_are_binary_and_follow_the_mixture(seven: Path) -> None:
    samples = TrainingSamples(open_source(seven), CONFIG)
    masks = torch.stack([samples[p].m for p in range(40)])
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert len({m.numpy().tobytes() for m in masks}) > 20
    only_centre = TrainingSamples(open_source(seven), StreamConfig(size=SIZE, masks={"centre": 2.0, "brush": 0.0}))
    assert len({only_centre[p].m.numpy().tobytes() for p in range(10)}) == 1


def test_users_own_masks_are_drawn(seven: Path, tmp_path: Path) -> None:
    hole = np.zeros((SIZE, SIZE), np.uint8)
    hole[2:5, 2:5] = 255
    masks = MaskFolder(write_folder(tmp_path / "masks", {"one.png": png(hole)}))
    config = StreamConfig(size=SIZE, masks={"folder": 1.0})
    samples = TrainingSamples(open_source(seven), config, masks)
    assert all(samples[p].m.sum() == 9 for p in range(5))
    with pytest.raises(ConfigError, match="folder"):
        TrainingSamples(open_source(seven), config)


@pytest.mark.parametrize(("probability", "present"), [(0.0, {0.0}), (1.0, {1.0}), (0.5, {0.0, 1.0})])
def test_guide_is_absent_or_near_the_picture(seven: Path, probability: float, present: set[float]) -> None:
    samples = TrainingSamples(open_source(seven), StreamConfig(size=SIZE, guide_probability=probability))
    batch = collate([samples[p] for p in range(30)])
    assert set(batch.guide_present.tolist()) == present
    there = batch.guide_present == 1
    assert not batch.guide[~there].any()
    error = (batch.guide - batch.x)[there].abs().mean(dim=(1, 2, 3))
    spread = (batch.x - batch.x.mean(dim=(2, 3), keepdim=True))[there].abs().mean(dim=(1, 2, 3))
    assert (error > 0).all() and (error < spread).all()
    assert len(error) == 0 or (error / spread).mean() < 0.6


def test_captions_stay_with_their_picture(seven: Path) -> None:
    for batch in take(TrainingSamples(open_source(seven), CONFIG), 3, workers=1):
        for name, captions in zip(batch.names, batch.captions, strict=True):
            assert captions == (["a ginger cat", "green eyes"] if Path(name).name == "00.png" else [])


@pytest.mark.parametrize(
    ("caption", "other"),
    [
        ("a cat on the left of a dog", "a cat on the right of a dog"),
        ("Left, right and RIGHT.", "Right, left and LEFT."),
        ("the right-hand side", "the left-hand side"),
        ("bright uprights leftover", "bright uprights leftover"),
    ],
)
def test_captions_of_mirrored_pictures_say_right_for_left(tmp_path: Path, caption: str, other: str) -> None:
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[:, : SIZE // 2] = 255  # light on the left
    folder = write_folder(tmp_path, {"0.png": png(pixels), "0.txt": caption.encode()})
    config = StreamConfig(size=SIZE, guide_probability=0, augment=False, caption_drop=0)
    samples = [TrainingSamples(open_source(folder), config)[position] for position in range(20)]
    assert {bool(s.x[0, 0, 0] > 0): (s.told, s.captions) for s in samples} == {
        True: (caption, [caption]),
        False: (other, [other]),
    }
    (batch,) = fixed_batches(open_source(folder), SIZE, 3, 0, "centre", 1)
    assert batch.told == [caption], "validation mirrors nothing"


# ----------------------------------------------------------------------------------------- pictures that cannot be read


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_pictures_are_replaced_and_named_or_refused(
    seven: Path, seven_files: dict[str, bytes], workers: int
) -> None:
    write_folder(seven, {"01.png": b"not a picture", "02.png": seven_files["02.png"][:200]})
    source = open_source(seven)
    seen = take(TrainingSamples(source, CONFIG), 7, workers=workers)  # three epochs of seven
    names = [name for batch in seen for name in batch.names]
    reports = [skip for batch in seen for skip in batch.skipped]
    assert {Path(name).name for name in names} == {"00.png", "03.png", "04.png", "05.png", "06.png"}
    assert names.count(str(seven / "03.png")) == 9  # thrice for itself, thrice for each of the broken ones
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


# ------------------------------------------------------------------------------------------------------------- settings


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
