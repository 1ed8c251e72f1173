from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluating import cases_of, noise_folder

from manyfill.data import open_source
from manyfill.errors import DataError
from manyfill.evaluate import memorisation
from manyfill.pipeline import Filler


class Copier(Filler):
    """A model that has learnt its training pictures by heart and pastes one of them, mirrored at times."""

    training: list[np.ndarray]

    def __call__(self, image: Any, mask: Any = None, n: int = 8, seed: int = 0, *rest: Any, **named: Any) -> Any:
        completions = super().__call__(image, mask, n, seed)
        for index, fill in enumerate(completions.images):
            source = self.training[(seed + index) % len(self.training)]
            source = source[:, ::-1] if index % 2 else source
            fill[mask] = source[mask]
        return completions


def copier_of(model: Path, training: Path) -> Copier:
    copier, source = Copier(Filler.from_pretrained(model).model, "copier"), open_source(training)
    copier.training = [source[i].pixels for i in range(len(source))]
    return copier


def test_a_model_that_copies_is_found_out(model: Path, tmp_path: Path) -> None:
    training, held_out = noise_folder(tmp_path / "training", 0, 40), noise_folder(tmp_path / "held-out", 1, 8)
    cases = cases_of(held_out, "half", 8)
    for honest in memorisation.check(Filler.from_pretrained(model), open_source(training), cases):
        assert honest.verdict == "passed" and honest.copied == 0 and honest.judged == 8
    pixels, features = memorisation.check(copier_of(model, training), open_source(training), cases)
    assert (pixels.verdict, pixels.copied, pixels.doubles) == ("failed", 1, 0)
    worst = pixels.suspects[0]
    assert worst.fill.ratio == pytest.approx(0, abs=1e-3) and worst.truth.ratio > 0.5
    mask = worst.case.mask
    mirrored = worst.fill.nearest[:, ::-1]
    assert any(np.array_equal(near[mask], worst.fill.picture[mask]) for near in (worst.fill.nearest, mirrored))
    # Half of what a fill's features see is foreign to the training picture it was copied from.
    assert features.space == "features" and features.copied > 0 and features.verdict == "failed"


def test_pictures_that_stand_in_the_training_set_decide_nothing(model: Path, tmp_path: Path) -> None:
    training = noise_folder(tmp_path / "same", 0, 20)
    pixels, _ = memorisation.check(copier_of(model, training), open_source(training), cases_of(training, "centre", 5))
    assert pixels.doubles == 5 and pixels.judged == 0 and pixels.verdict == "undecided"
    few = noise_folder(tmp_path / "few", 2, 9)
    with pytest.raises(DataError, match="--training: holds 9 readable pictures"):
        memorisation.check(Filler.from_pretrained(model), open_source(few), cases_of(few, "centre", 2))
