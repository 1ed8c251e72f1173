"""Which models can be exported, and what is written of those that can."""

from pathlib import Path
from typing import Any

import pytest
from commandline import refused
from exporting import MICRO, stored

from manyfill.errors import ManyfillError
from manyfill.export import export_model
from manyfill.export.precision import quantised
from manyfill.models.config import PRESETS

pytest.importorskip("onnxscript")


def test_models_that_no_graph_holds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chained = tuple(level.model_copy(update={"prior": "autoregressive"}) for level in MICRO.levels[1:])
    model = stored(MICRO.model_copy(update={"levels": (MICRO.levels[0], *chained)}), here / "chained")
    line = refused(capsys, "export", str(model), "--onnx", "out")
    assert str(model) in line and "autoregressive priors, which cannot be exported" in line and not Path("out").exists()


def test_every_preset_is_either_exportable_or_refused() -> None:
    from manyfill.export.graphs import check

    unfit = set()
    for name, config in PRESETS.items():
        try:
            check(name, config)
        except ManyfillError:
            unfit.add(name)
    assert unfit == {"pixelvae64", "caption64"}


def test_a_model_without_blocks_has_nothing_on_integers(here: Path) -> None:
    bare: dict[str, Any] = {"canvas": False}
    bare |= {
        part: tuple(spec.model_copy(update={"depth": 0, **lead}) for spec in getattr(MICRO, part))
        for part, lead in (("stages", {}), ("levels", {"lead": 0}))
    }
    single = export_model(str(stored(MICRO.model_copy(update=bare), here / "bare")), here / "single")
    int8 = quantised(single)
    assert int8.graphs == single.graphs and int8.export.precision == "int8"


def test_the_head_of_a_card_stays_at_its_head() -> None:
    from manyfill.export import write_card

    card = write_card("mine", "fp16", "---\ntags:\n- inpainting\n---\n# A card\n\n---\n")
    assert card.startswith("---\ntags:\n- inpainting\n---\n# mine, exported\n") and card.endswith("# A card\n\n---\n")
    assert "fp16" in card and write_card("mine", "fp32", "# A card\n").startswith("# mine, exported\n")
