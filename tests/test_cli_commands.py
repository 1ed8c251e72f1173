"""The commands beside fill, and the command line as a process: what they write, what they load."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import MASK, PIXELS, ROOT, refused

import manyfill
from manyfill import demo
from manyfill.checkpoint import load_model, save_model
from manyfill.cli import evaluate, main, train
from manyfill.cli_fill import Options
from manyfill.demo import Case
from manyfill.encode import CHOICES
from manyfill.evaluate.baselines import FAMILIES
from manyfill.evaluate.cases import kinds
from manyfill.evaluate.run import DEFAULT_BASELINES
from manyfill.images import open_picture, save_png
from manyfill.masks import KINDS, LARGE_KINDS
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_model(directory, ConditionalHVAE(PRESETS["tiny32"]), "# A tiny card\n", {"bits_per_dim": 7.25})
    return directory


def test_info_shows_make_size_card_and_figures(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model)]) == 0
    shown = capsys.readouterr().out
    for words in ("32x32", "MB", "A tiny card", "bits_per_dim", "7.25", "residual"):
        assert words in shown
    parameters = sum(p.numel() for p in ConditionalHVAE(PRESETS["tiny32"]).parameters())
    assert f"{parameters:,}" in shown


def test_info_is_brief_about_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    table, card = capsys.readouterr().out.split("---", 1)
    assert "masks, centre" in table and "{" not in table and not re.search(r"\d\.\d{7}", table)
    assert f"---{card}" == load_model("default").card + "\n"


def test_demo_leaves_a_page_whose_pictures_are_there(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = (Case("Coffee", "coffee", (0, 60, 400), 64, "centre"), Case("Man", "camera", (0, 0, 512), 40, "outpaint"))
    monkeypatch.setattr(demo, "CASES", cases)
    assert main(["demo", "--out", "page", "-n", "2", "--model", str(model)]) == 0
    assert "page/index.html" in capsys.readouterr().out
    page = Path("page/index.html").read_text()
    sources = [part.split('"')[0] for part in page.split('src="')[1:]]
    assert len(sources) == 2 * (4 + 2) and all((Path("page") / source).is_file() for source in sources)
    assert "bits/dim" in page and "http" not in page


def test_every_photograph_of_the_demo_comes_with_scikit_image() -> None:
    for case in demo.CASES:
        assert demo._photograph(case).shape[:2] == (case.size, case.size)


def test_the_demo_without_scikit_image_names_the_extra(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert "manyfill[demo]" in refused(capsys, "demo", "--model", str(model))
    assert not (here / "demo").exists()


def test_train_refuses_a_typo_and_an_absent_folder(capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "photos", "--out", "run", "--preset", "tiny32", "--steps", "1"]
    message = refused(capsys, *train, "--set", "train.lerning_rate=1")
    assert "lerning_rate" in message and "valid keys" in message
    assert "photos" in refused(capsys, *train)
    assert not Path("run/model").exists()


def test_a_trained_folder_fills() -> None:
    Path("photos").mkdir()
    for i in range(4):
        save_png(Path(f"photos/{i}.png"), np.roll(PIXELS, 9 * i, 1))
    train = ["train", "photos", "--val", "photos", "--out", "run", "--preset", "tiny32", "--steps", "2"]
    assert main([*train, "--set", "train.batch_size=2", "--set", "train.workers=0"]) == 0
    assert main(["fill", "photo.png", "--mask", "mask.png", "-n", "1", "--model", "run/model"]) == 0
    assert np.array_equal(open_picture("photo-fills/fill-00.png").pixels[~MASK], PIXELS[~MASK])


# --------------------------------------------------------------------------------------------------------- as a process


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_a_reader_that_has_seen_enough_is_no_error_to_tell_of(model: Path) -> None:
    loaded = load_model(str(model))
    save_model(Path("wordy"), loaded.model, "# A card\n" + "of more than a pipe holds\n" * 10_000, {})
    command = [sys.executable, "-m", "manyfill", "info", "wordy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as telling:
        assert telling.stdout is not None and telling.stderr is not None
        assert telling.stdout.readline()
        telling.stdout.close()
        assert telling.stderr.read() == "" and telling.wait() == 1


def test_a_process_ends_with_2_and_one_line() -> None:
    done = python("-m", "manyfill", "fill", "nothing.png", "--model", "./nowhere")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_help_names_all_there_is_to_choose_from() -> None:
    of_train, of_evaluate, of_fill = (" ".join(str(told.__doc__).split()) for told in (train, evaluate, Options))
    assert all(f" {preset}" in of_train for preset in PRESETS)
    assert all(f" {kind}" in of_evaluate for kind in (*KINDS, *LARGE_KINDS, *FAMILIES))
    assert ", ".join(kinds(None, None)) + " (these if left out)" in of_evaluate
    assert DEFAULT_BASELINES[0].replace(",", ", ") + " (these if left out)" in of_evaluate
    assert ", ".join(CHOICES[:-1]) + f" or {CHOICES[-1]}" in of_fill


@pytest.mark.parametrize("arguments", [["--help"], ["fill", "--help"], ["train", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    heavy = {"torch", "numpy", "PIL", "pydantic", "matplotlib", "safetensors", "skimage", "onnxruntime"}
    program = f"""
import sys
from manyfill.cli import main
code = main({arguments!r})
print("LOADED", sorted({heavy!r} & set(sys.modules)), code)
"""
    done = python("-c", program)
    assert done.stdout.rstrip().endswith("LOADED [] 0"), done.stdout + done.stderr
    shown = done.stdout
    assert manyfill.__version__ in shown if arguments == ["--version"] else "Usage: manyfill" in shown
