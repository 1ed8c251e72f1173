"""The notebooks: they run from top to bottom, and what they show was shown by what they say."""

import ast
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
BY_NAME = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_two() -> None:
    assert len(NOTEBOOKS) == 2


@BY_NAME
def test_it_is_shown_with_its_results_and_nothing_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 1_000_000 and not any(place in text for place in ("/root", "/home", "/tmp", "Traceback"))
    notebook = nbformat.reads(text, 4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        ast.parse(cell.source)


@BY_NAME
@pytest.mark.slow
def test_it_runs_from_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, 4)
    shown = [sorted(output.get("data", {"text": 0})) for cell in notebook.cells for output in cell.get("outputs", ())]
    nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(path.parent)}}).execute()
    again = [sorted(output.get("data", {"text": 0})) for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [set(kinds) - {"image/jpeg"} for kinds in again] == [set(kinds) for kinds in shown]
