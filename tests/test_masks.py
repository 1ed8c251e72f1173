from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manyfill.errors import ConfigError, DataError, OutputError, PictureError
from manyfill.masks import KINDS, MaskFolder, draw, from_alpha, read_mask, write_mask
from manyfill.rng import numpy_generator


def masks(kind: str, height: int, width: int, count: int) -> list[np.ndarray]:
    return [draw(kind, height, width, numpy_generator(3, "test", i)) for i in range(count)]


def shares(kind: str, side: int, count: int = 150) -> np.ndarray:
    return np.array([mask.mean() for mask in masks(kind, side, side, count)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("height, width", [(4, 4), (5, 4), (7, 9), (64, 64), (33, 100), (4, 900)])
def test_every_mask_has_a_missing_and_a_known_pixel(kind: str, height: int, width: int) -> None:
    for mask in masks(kind, height, width, 40 if height < 10 and width < 10 else 5):
        assert mask.dtype == bool and mask.shape == (height, width)
        assert mask.any() and not mask.all()


@pytest.mark.parametrize("kind", KINDS)
def test_same_generator_state_gives_the_same_mask(kind: str) -> None:
    first, again = (draw(kind, 48, 64, numpy_generator(5, "test")) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "centre"])
def test_other_generator_states_give_other_masks(kind: str) -> None:
    assert len({mask.tobytes() for mask in masks(kind, 32, 32, 40)}) >= (4 if kind == "half" else 35)


@pytest.mark.parametrize("kind", KINDS)
def test_the_missing_share_does_not_depend_on_the_size(kind: str) -> None:
    small, middle, large = (shares(kind, side).mean() for side in (32, 64, 256))
    assert small == pytest.approx(middle, rel=0.2)
    assert large == pytest.approx(middle, rel=0.2)


@pytest.mark.parametrize(
    "kind, low, high",
    [
        ("boxes", 0.005, 0.9),
        ("brush", 0.05, 0.6),
        ("scratches", 0.02, 0.15),
        ("pixels", 0.15, 0.97),
        ("outpaint", 0.04, 0.97),
    ],
)
def test_the_missing_share_stays_in_its_range_and_uses_it(kind: str, low: float, high: float) -> None:
    share = shares(kind, 64)
    assert low <= share.min() and share.max() <= high
    assert share.max() - share.min() > 0.4 * (high - low)


def test_centre_is_the_middle_half_of_each_side() -> None:
    expected = np.zeros((64, 64), bool)
    expected[16:48, 16:48] = True
    assert np.array_equal(draw("centre", 64, 64, numpy_generator(0, "test")), expected)


def test_half_is_each_of_the_four_halves() -> None:
    drawn = masks("half", 8, 8, 60)
    assert all(mask.sum() == 32 for mask in drawn)
    for corner_pair in ([(0, 0), (0, 7)], [(7, 0), (7, 7)], [(0, 0), (7, 0)], [(0, 7), (7, 7)]):
        assert any(all(mask[at] for at in corner_pair) and mask.sum() == 32 for mask in drawn)


def test_outpaint_leaves_one_known_window_that_sometimes_touches_a_side() -> None:
    touches = 0
    for mask in masks("outpaint", 40, 60, 60):
        rows, columns = np.where(~mask)
        window = ~mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert window.all() and window.shape[0] >= 0.2 * 40 - 1 and window.shape[1] >= 0.2 * 60 - 1
        touches += rows.min() == 0
    assert 0 < touches < 60


def test_brush_and_scratch_thickness_grows_with_the_picture() -> None:
    def thickness(kind: str, side: int) -> float:
        """Twice the area over the edge length: the width of a long stroke."""
        drawn = masks(kind, side, side, 20)
        edges = sum((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum() for mask in drawn)
        return float(2 * sum(mask.sum() for mask in drawn) / edges)

    for kind in ("brush", "scratches"):
        assert 2.5 < thickness(kind, 256) / thickness(kind, 64) < 5
    assert 0.8 < thickness("scratches", 64) < 2


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'circle' does not exist.*centre.*half"):
        draw("circle", 8, 8, numpy_generator(0, "test"))


def test_a_picture_too_small_for_a_mask_is_refused() -> None:
    with pytest.raises(ConfigError, match="3x9"):
        draw("boxes", 9, 3, numpy_generator(0, "test"))


def test_from_alpha_takes_transparent_as_missing() -> None:
    assert from_alpha(np.array([[0, 127, 128, 255]], np.uint8)).tolist() == [[True, True, False, False]]


def test_written_masks_read_back_the_same(tmp_path: Path) -> None:
    mask = draw("brush", 20, 30, numpy_generator(1, "test"))
    write_mask(tmp_path / "mask.png", mask)
    assert np.array_equal(read_mask(tmp_path / "mask.png", (20, 30)), mask)
    with pytest.raises(OutputError):
        write_mask(tmp_path / "nowhere" / "mask.png", mask)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA"])
def test_any_8_bit_mask_file_is_read_by_its_luma(tmp_path: Path, mode: str) -> None:
    mask = draw("boxes", 12, 17, numpy_generator(2, "test"))
    image = Image.fromarray(mask.astype(np.uint8) * 255).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(200)
    image.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)


def test_what_is_transparent_in_a_mask_is_not_missing(tmp_path: Path) -> None:
    strokes = draw("brush", 20, 30, numpy_generator(1, "test"))
    layer = np.full((20, 30, 4), 255, np.uint8)  # as editors keep the colour of what was wiped out
    layer[..., 3] = strokes * 255
    Image.fromarray(layer).save(tmp_path / "layer.png")
    assert np.array_equal(read_mask(tmp_path / "layer.png"), strokes)


def test_a_mask_of_the_labels_0_and_1_is_no_black_picture(tmp_path: Path) -> None:
    labels = draw("brush", 20, 30, numpy_generator(1, "test"))
    Image.fromarray(labels.astype(np.uint8)).save(tmp_path / "labels.png")
    assert np.array_equal(read_mask(tmp_path / "labels.png"), labels)


def test_mask_threshold_lies_between_127_and_128(tmp_path: Path) -> None:
    values = np.array([[0, 127, 128, 255]], np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(np.repeat(values[..., None], 3, 2)).save(tmp_path / "rgb.png")
    for name in ("grey.png", "rgb.png"):
        assert read_mask(tmp_path / name).tolist() == [[False, False, True, True]]


def test_a_mask_of_another_size_names_both_sizes(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", np.ones((20, 30), bool))
    with pytest.raises(PictureError, match=r"mask\.png.*30x20.*64x48") as caught:
        read_mask(tmp_path / "mask.png", (48, 64))
    assert "\n" not in str(caught.value)


def test_mask_folder_draws_all_of_its_masks_in_all_orientations(tmp_path: Path) -> None:
    left = np.zeros((6, 6), bool)
    left[0, 0:2] = True  # eight distinct flips and turns
    (tmp_path / "deeper").mkdir()
    write_mask(tmp_path / "b.png", left)
    write_mask(tmp_path / "deeper" / "a.PNG", ~left)
    (tmp_path / "notes.txt").write_text("not a mask")
    folder = MaskFolder(tmp_path)
    assert [path.name for path in folder.paths] == ["b.png", "a.PNG"] and len(folder) == 2
    drawn = {folder.draw(6, 6, numpy_generator(0, "test", i)).tobytes() for i in range(300)}
    expected = {np.rot90(m, k)[:, ::f].tobytes() for m in (left, ~left) for k in range(4) for f in (1, -1)}
    assert drawn == expected and len(expected) == 16
    once, again = (folder.draw(9, 5, numpy_generator(4, "test")) for _ in range(2))
    assert np.array_equal(once, again)


def test_mask_folder_resizes_to_nearest_and_never_loses_the_hole(tmp_path: Path) -> None:
    half = np.zeros((10, 10), bool)
    half[:, :5] = True
    write_mask(tmp_path / "half.png", half)
    assert draw_mean(tmp_path / "half.png", 32, 64) == pytest.approx(0.5)
    line = np.zeros((101, 101), bool)
    line[0] = True
    write_mask(tmp_path / "line.png", line)
    assert all(MaskFolder(tmp_path / "line.png").draw(8, 8, numpy_generator(0, "test", i)).any() for i in range(20))


def draw_mean(path: Path, height: int, width: int) -> float:
    return float(
        np.mean([MaskFolder(path).draw(height, width, numpy_generator(0, "test", i)).mean() for i in range(8)])
    )


def test_mask_folder_without_masks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no mask pictures"):
        MaskFolder(tmp_path)
    with pytest.raises(DataError, match="no such"):
        MaskFolder(tmp_path / "missing")
