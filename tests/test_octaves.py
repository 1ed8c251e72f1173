"""Holes of any size: the cells they are cut into, parts that lie apart, what refinement makes of a coarse answer."""

from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch

from manyfill import Filler, octaves
from manyfill.crop import enlarge, parts, shrink
from manyfill.drawing import Drawn
from manyfill.evaluate.fidelity import seam
from manyfill.inputs import Sampling, read
from manyfill.masks import draw
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE, Known
from manyfill.octaves import cells, sizes
from manyfill.runtime import Masked, Noise, Tiles
from manyfill.runtime.network import Network

SIZE = PRESETS["tiny32"].size


@pytest.fixture(scope="module")
def tiny() -> Filler:
    torch.manual_seed(0)
    return Filler(ConditionalHVAE(PRESETS["tiny32"]), "tiny")


@pytest.fixture(scope="module")
def filler() -> Filler:
    return Filler.from_pretrained(device="cpu")


def box(height: int, width: int, top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---------------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("kind", ["centre", "brush", "scratches", "outpaint", "half"])
@pytest.mark.parametrize("side", [64, 65, 90, 200])
def test_cells_share_a_hole_out_and_lie_within_their_tiles(kind: str, side: int) -> None:
    own = draw(kind, side, side, np.random.default_rng(side))
    covered = np.zeros((side, side), int)
    for cell in cells(own, 64):
        covered[cell.core] += 1
        assert own[cell.core].any()
        for core, tile in zip(cell.core, cell.tile, strict=True):
            assert tile.stop - tile.start == 64 and tile.start >= 0 and tile.stop <= side
            near, far = core.start - tile.start, tile.stop - core.stop
            assert near >= min(8, core.start) and far >= min(8, side - core.stop)
    assert covered[own].min() == 1 and covered.max() == 1


def test_a_hole_is_first_drawn_at_the_finest_size_at_which_tiles_see_around_it() -> None:
    picture = noise(600, 800)
    for mask, expected in [
        (box(600, 800, 100, 100, 20), [64]),
        (box(600, 800, 100, 100, 100), [64, 100, 200]),
        (box(600, 800, 100, 100, 256), [64, 128, 256, 512]),
    ]:
        (part,) = parts(picture, mask, 64)
        assert sizes(part, 64) == expected
    scratch = np.zeros((600, 800), bool)
    for x in range(20, 780):
        scratch[x // 2 + 50 : x // 2 + 53, x] = True
    (part,) = parts(picture, scratch, 64)
    assert sizes(part, 64) == [part.box.side]
    assert len(cells(part.own, 64)) < 60  # along it, not all over its square


def test_far_holes_are_parts_of_their_own_and_near_ones_are_not() -> None:
    mask = box(500, 900, 40, 50, 30) | box(500, 900, 300, 700, 60)
    found = parts(noise(500, 900), mask, 64)
    assert [part.box.side for part in found] == [64, 120]
    assert [int(part.own.sum()) for part in found] == [900, 3600]
    near = box(500, 900, 100, 100, 100) | box(500, 900, 100, 220, 60)
    assert len(parts(noise(500, 900), near, 64)) == 1
    specks = np.zeros((1200, 1200), bool)
    specks[32::150, 32::150] = True
    assert len(parts(noise(1200, 1200), specks, 64)) == 64


@pytest.mark.parametrize(
    ("shape", "side", "calm"),
    [((32, 32), 16, False), ((40, 32), 12, True), ((70, 90), 30, True), ((32, 20), 9, False), ((150, 150), 70, True)],
)
def test_fine_latents_are_calmed_first_in_what_is_no_whole_picture(
    tiny: Filler, shape: tuple[int, int], side: int, calm: bool
) -> None:
    drawn = []

    class Watched(Network):
        def draw(self, told: Known, copies: int, noise: Noise) -> Tiles:
            drawn.append([z.std() for z in noise.levels])
            return super().draw(told, copies, noise)

    picture, hole = noise(*shape), box(*shape, 2, 2, side)
    (part,) = parts(picture, hole, SIZE)
    steps = len(sizes(part, SIZE))
    Filler(Watched(tiny.model), "tiny")(picture, hole, n=4)
    for level, spec in enumerate(tiny.config.levels):
        if spec.size >= SIZE // 4:  # of which there are enough to tell
            wanted = {SIZE: 0.6, SIZE // 2: 0.85}.get(spec.size, 1.0) if calm else 1.0
            assert drawn[0][level] == pytest.approx(wanted, rel=0.1)
            if steps > 1:
                assert drawn[-1][level] == pytest.approx(1.0 if steps == 2 else 0.85, rel=0.1)


def test_cost_grows_with_the_hole_and_not_with_the_picture() -> None:
    small, large = (
        parts(np.zeros((*shape, 3), np.uint8), box(*shape, 300, 300, 256), 64) for shape in ((1000, 1000), (3000, 4000))
    )
    assert octaves.rows(small[0], sizes(small[0], 64), 64) == octaves.rows(large[0], sizes(large[0], 64), 64)


# ------------------------------------------------------------------------------------------------------------- draws


def test_the_batch_and_the_company_change_nothing() -> None:
    torch.manual_seed(0)
    model = ConditionalHVAE(PRESETS["tiny32"])
    picture, mask = noise(150, 200), box(150, 200, 30, 40, 60)
    a, b = (Filler(model, "tiny", tile_batch=count)(picture, mask, n=3) for count in (2, 32))
    for one, other in zip(a.images, b.images, strict=True):
        gap = np.abs(one.astype(int) - other)
        assert (gap > 1).mean() < 1e-3  # some processors round batches of another size otherwise
    alone = Filler(model, "tiny")(picture, box(150, 200, 10, 10, 12), n=2)
    both = Filler(model, "tiny")(picture, box(150, 200, 10, 10, 12) | box(150, 200, 120, 170, 15), n=2)
    for one, other in zip(alone.images, both.images, strict=True):
        assert (np.abs(one[:40, :40].astype(int) - other[:40, :40]) > 1).mean() < 1e-3
        assert not np.array_equal(other[120:135, 170:185], picture[120:135, 170:185])


def test_fills_are_drawn_in_the_same_batches_together_in_portions_and_in_bulk(
    tiny: Filler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the last bit of a sum, and with it a grey level here and there, would depend on the way."""
    picture, mask, sampling = noise(150, 200), box(150, 200, 30, 40, 60), Sampling(5)
    shown, drawn, batches = tiny.show(read(picture, mask)), octaves._draw, list[list[int]]()

    def counted(model: ConditionalHVAE, batch: octaves.Batch) -> None:
        batches[-1].append(len(batch.rows))
        drawn(model, batch)

    monkeypatch.setattr(octaves, "_draw", counted)
    assert shown
    portions: list[Drawn] = []
    for way in (
        lambda: tiny(picture, mask, n=5),
        lambda: portions.extend(tiny.portions(shown, sampling.recipes)),
        lambda: tiny.draw([shown], sampling),
    ):
        batches.append([])
        way()
    assert len(portions) > 1 and batches[0] == batches[1] == batches[2]


@pytest.mark.parametrize("mask", [box(150, 200, 30, 40, 60), np.indices((150, 200)).sum(0) % 40 < 3])
def test_that_only_cells_are_kept_of_tiles_changes_nothing(tiny: Filler, mask: np.ndarray) -> None:
    picture, runtime, kept = noise(150, 200), tiny.runtime, list[bool]()
    ours = tiny(picture, mask, n=2)

    class Whole(Network):
        def tell(self, masked: Masked) -> Known:
            kept.append(masked.kept is not None)
            return super().tell(replace(masked, kept=None))

    theirs = Filler(Whole(tiny.model), "tiny")(picture, mask, n=2)
    assert isinstance(runtime, Network) and any(kept) == mask[40, 50]
    everything = ([*found.images, found.mean, *found.latents] for found in (ours, theirs))
    for one, other in zip(*everything, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("shape", [(1, 70), (2, 2), (70, 71), (90, 33)])
def test_odd_shapes(tiny: Filler, shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    for mask in (np.ones(shape, bool), np.indices(shape).sum(0) % 2 == 0, box(*shape, 0, 0, 1)):
        result = tiny(picture, mask, n=2)
        assert all(np.array_equal(image[~mask], picture[~mask]) for image in [*result.images, result.mean])


def test_refinement_adds_detail_to_the_coarse_answer_and_stays_with_it(filler: Filler) -> None:
    picture, mask = skimage.data.coffee(), box(400, 600, 120, 220, 128)
    refined = filler(picture, mask, n=2)
    (part,) = parts(picture, mask, 64)
    small, hole = shrink(part.pixels, part.missing, 64)
    coarse = filler(small, hole, n=2)
    inside = np.zeros_like(part.missing)
    inside[64:-64, 64:-64] = True
    for fine, answer in zip(refined.images, coarse.images, strict=True):
        ours = part.box.cut(fine)
        back, _ = shrink(ours, np.zeros_like(part.missing), 64)
        assert np.corrcoef(back[hole].ravel(), answer[hole].ravel())[0, 1] > 0.9  # no drift
        assert abs(back[hole].astype(float).mean() - answer[hole].mean()) < 6
        steps = [
            np.abs(np.diff(image.astype(float), axis=0))[inside[1:]].mean() for image in (ours, enlarge(answer, 256))
        ]
        assert steps[0] > 1.3 * steps[1]


def test_tiles_leave_no_borders(filler: Filler) -> None:
    """Across the borders of cells the steps stand out no more than in the coarse answer, which has no such borders."""
    picture, mask = skimage.data.coffee(), box(400, 600, 120, 220, 128)
    (part,) = parts(picture, mask, 64)
    small, hole = shrink(part.pixels, part.missing, 64)
    plain = [enlarge(answer, 256) for answer in filler(small, hole, n=4).images]
    refined = [part.box.cut(image) for image in filler(picture, mask, n=4).images]
    at = [cell.core[0].start - 1 for cell in cells(part.own, 64) if cell.row and not cell.column]
    assert at == [106, 148]
    standing_out = []
    for images in (plain, refined):
        steps = np.mean([np.abs(np.diff(image.astype(float), axis=0)) for image in images], 0)[:, 64:192].mean((1, 2))
        standing_out.append(steps[at].mean() / steps[70:186].mean())
    assert standing_out[1] < 1.15 * standing_out[0]


@pytest.mark.parametrize("side", [24, 64])
def test_fills_of_excerpts_join_what_is_known(filler: Filler, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    """Their border's steps are hardly larger than the picture's own beside it, whether they took a doubling or not."""
    picture, mask, beside = skimage.data.coffee(), box(400, 600, 120, 220, side), box(400, 600, 119, 219, side + 2)
    bent = filler(picture, mask, n=4)
    monkeypatch.setattr(octaves, "bend", unbent)
    plain = filler(picture, mask, n=4)
    usual, less = seam(picture, beside) * side / (side + 2), []
    for one, other in [*zip(bent.images, plain.images, strict=True), (bent.mean, plain.mean)]:
        assert np.array_equal(one[~mask], picture[~mask])
        assert seam(one, mask) < max(1.1 * usual, seam(other, mask))
        less.append(seam(one, mask) < seam(other, mask))
    assert any(less)


def test_fills_of_whole_pictures_are_the_models_own(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, mask = skimage.data.coffee()[100:164, 200:264], box(64, 64, 16, 16, 32)
    shown = filler(picture, mask, n=2)
    monkeypatch.setattr(octaves, "bend", unbent)
    assert all(map(np.array_equal, shown.images, filler(picture, mask, n=2).images))


def test_bent_fills_and_their_mean_stay_within_the_levels(tiny: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    for by, level in ((-300, 0), (300, 255)):
        far = np.float32(by)
        monkeypatch.setattr(octaves, "bend", lambda image, hole, known, far=far: np.full(image.shape, far))
        mask = box(80, 80, 10, 10, 40)
        result = tiny(noise(80, 80), mask, n=2)
        assert all((image[mask] == level).all() for image in [*result.images, result.mean])


def unbent(image: np.ndarray, hole: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.zeros(image.shape, np.float32)


def test_octaves_are_levels_to_keep_and_redraw(filler: Filler) -> None:
    picture, mask = skimage.data.coffee(), box(400, 600, 150, 250, 80)
    drawn = filler(picture, mask, n=1)
    origin, fill = drawn.images[0], drawn.fills[0]
    levels = len(filler.model.config.levels)
    assert len(fill.recipe.layers) == levels + 2
    same = filler.reroll(picture, mask, fill, "all", n=1).images[0]
    assert np.array_equal(same, origin)
    other = filler.reroll(picture, mask, fill, f"1-{levels}", n=1, seed=1).images[0]
    low, high = [], []
    for image in (origin, other):
        hole = image[150:230, 250:330].astype(float)
        coarse = hole.reshape(10, 8, 10, 8, 3).mean((1, 3))
        low.append(coarse.ravel())
        high.append((hole - np.kron(coarse, np.ones((8, 8, 1)))).ravel())
    assert np.corrcoef(low)[0, 1] > 0.95 > np.corrcoef(high)[0, 1]
