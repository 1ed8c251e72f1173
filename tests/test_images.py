"""Pixels: conversion, resizing, PNG files written whole, contact sheets."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from manyfill.errors import OutputError
from manyfill.images import (
    contact_sheet,
    heatmap,
    open_picture,
    png_bytes,
    resize,
    save_png,
    to_pixels,
    to_tensor,
)

RGB = data.astronaut()[100:140, 200:260]
GREY = data.camera()[100:140, 200:260]


# ------------------------------------------------------------------------------------------------- conversion


@pytest.mark.parametrize("channels", [1, 3])
def test_all_256_values_survive_the_round_trip(channels: int) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(channels, 2)
    x = to_tensor(pixels)
    assert x.shape == (channels, 16, 16) and x.dtype == torch.float32
    assert x.min() == -1 and x.max() == 1
    torch.testing.assert_close(x[0].flatten(), torch.arange(256.0) / 127.5 - 1)
    assert np.array_equal(to_pixels(x), pixels)
    assert np.array_equal(to_pixels(x.double().requires_grad_()), pixels)


def test_conversion_moves_channels_without_mixing_positions() -> None:
    x = to_tensor(RGB)
    assert x.shape == (3, 40, 60)
    assert float(x[2, 7, 11]) == pytest.approx(RGB[7, 11, 2] / 127.5 - 1)
    assert np.array_equal(to_pixels(x), RGB)


def test_values_outside_the_range_are_clipped() -> None:
    assert to_pixels(torch.tensor([[[-3.0, 7.0]]])).ravel().tolist() == [0, 255]


def test_resize_keeps_type_channels_and_mean() -> None:
    for pixels in (RGB, GREY[..., None]):
        small = resize(pixels, 20, 30)
        assert small.shape == (20, 30, pixels.shape[2]) and small.dtype == np.uint8
        assert small.mean() == pytest.approx(pixels.mean(), abs=1.5)
    assert np.array_equal(resize(RGB, 40, 60), RGB)


# ---------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_saved_pixels_read_back_the_same(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, channels), np.uint8)
    save_png(tmp_path / "out.png", pixels)
    again = open_picture(tmp_path / "out.png")
    alpha = [] if again.alpha is None else [again.alpha[..., None]]
    assert np.array_equal(np.concatenate([again.pixels, *alpha], 2), pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 1), (300, 1, 4)])
def test_the_smallest_pictures_are_png_files_too(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    content = io.BytesIO(png_bytes(pixels))
    Image.open(content).verify()  # its checksums
    with Image.open(content) as image:
        assert image.format == "PNG" and np.array_equal(np.asarray(image).reshape(shape), pixels)


def test_saving_twice_replaces_and_gives_the_same_bytes(tmp_path: Path) -> None:
    save_png(tmp_path / "out.png", RGB[::-1])
    save_png(tmp_path / "out.png", RGB)
    first = (tmp_path / "out.png").read_bytes()
    save_png(tmp_path / "out.png", RGB)
    assert (tmp_path / "out.png").read_bytes() == first


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_png(tmp_path / "out.png", GREY[..., None])
    before = (tmp_path / "out.png").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"out\.png.*No space left.*free space"):
        save_png(tmp_path / "out.png", RGB)
    assert (tmp_path / "out.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_an_interrupted_write_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_png(tmp_path / "out.png", RGB)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "missing" / "out.png", tmp_path / "file" / "out.png", tmp_path / "folder"):
        with pytest.raises(OutputError) as caught:
            save_png(target, RGB)
        assert str(caught.value).startswith(str(target)) and "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


# ----------------------------------------------------------------------------------------------- for the eyes


def test_contact_sheet_places_every_tile() -> None:
    sheet = contact_sheet([[RGB, GREY[..., None]], [RGB[::-1]]], gap=5)
    assert sheet.shape == (5 + 2 * 45, 5 + 2 * 65, 3) and sheet.dtype == np.uint8
    assert np.array_equal(sheet[5:45, 5:65], RGB)
    assert np.array_equal(sheet[5:45, 70:130], GREY[..., None].repeat(3, 2))
    assert np.array_equal(sheet[50:90, 5:65], RGB[::-1])
    assert (sheet[50:90, 70:130] == 255).all()


def test_labels_stand_above_their_tiles_and_stay_within_their_width() -> None:
    plain = contact_sheet([[RGB, RGB]], [["", ""]])
    labelled = contact_sheet([[RGB, RGB]], [["a label much too long to fit in the width", ""]])
    assert plain.shape == labelled.shape and plain.shape[0] > contact_sheet([[RGB, RGB]]).shape[0]
    changed = np.where((plain != labelled).any(2))
    assert changed[0].size > 30 and changed[0].max() < plain.shape[0] - 44 and changed[1].min() >= 4
    assert changed[1].max() < 4 + 60
    assert labelled[changed].min() < 120  # dark enough to read


def test_small_tiles_are_enlarged_as_squares_and_large_ones_filtered() -> None:
    board = np.array([[0, 255], [255, 0]], np.uint8)[..., None]
    sheet = contact_sheet([[board]], gap=4, tile=8)
    assert np.array_equal(sheet[4:12, 4:12, 0], board[..., 0].repeat(4, 0).repeat(4, 1))
    assert contact_sheet([[RGB]], gap=4, tile=30).shape == (20 + 8, 30 + 8, 3)


def test_heatmap_brightens_steadily_and_clips() -> None:
    ramp = heatmap(np.linspace(0, 1, 200)[None])
    luma = ramp[0] @ np.array([0.299, 0.587, 0.114])
    assert ramp.shape == (1, 200, 3) and ramp.dtype == np.uint8
    assert (np.diff(luma) > -1).all() and luma[0] < 15 and luma[-1] > 230
    assert (luma[20:] - luma[:-20] > 10).all()
    odd = heatmap(np.array([[-1.0, 2.0, np.nan]]))
    assert np.array_equal(odd[0], ramp[0, [0, -1, 0]])
