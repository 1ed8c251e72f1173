"""Validation: the same pictures under the same masks, whatever else is broken."""

from pathlib import Path

import pytest
import torch
from pictures import write_folder
from streams import SIZE, same

from manyfill.data import (
    Batch,
    fixed_batches,
    open_source,
)
from manyfill.errors import PictureError


def test_fixed_batches_are_fixed_ordered_and_complete(seven: Path) -> None:
    source = open_source(seven)

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


def test_fixed_batches_leave_broken_pictures_out_and_keep_the_others_masks(seven: Path) -> None:
    source = open_source(seven)
    whole = list(fixed_batches(source, SIZE, 3, 1, "brush", 4))
    write_folder(seven, {"01.png": b"", "deep/er/06.png": b""})
    part = list(fixed_batches(source, SIZE, 3, 1, "brush", 4))
    assert [len(batch.names) for batch in part] == [4, 1]
    assert torch.equal(part[0].m[1:3], whole[0].m[2:4])
    assert [Path(skip.name).name for batch in part for skip in batch.skipped] == ["01.png", "06.png"]
    with pytest.raises(PictureError, match=r"01\.png"):
        list(fixed_batches(source, SIZE, 3, 1, "brush", 4, strict=True))
