import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from manyfill.data import Source
from manyfill.errors import ManyfillError, PictureError
from manyfill.evaluate import temperatures
from manyfill.evaluate.cases import Cases
from manyfill.evaluate.crew import MOST, Crew, usual_size
from manyfill.evaluate.run import Evaluation, Request
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE
from manyfill.pipeline import Filler


def scaled(held: list[int], task: int) -> int:
    if task == 13:
        raise PictureError("picture 13: is broken")
    held.append(task)  # in this process's own copy
    return held[0] * task


@pytest.mark.parametrize("size", [1, 2])
def test_a_crew_answers_in_order_and_hands_errors_on(size: int) -> None:
    with Crew(size, [10]) as crew:
        assert list(crew.each(scaled, range(5))) == [0, 10, 20, 30, 40]
        answers = crew.each(scaled, [1, 13, 2])
        assert next(answers) == 10
        with pytest.raises(PictureError, match="13: is broken"):
            next(answers)
    if size > 1:
        assert crew.held == [10]


def killed(held: None, task: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_one_clear_line() -> None:
    with Crew(2, None) as crew, pytest.raises(ManyfillError, match="was killed; run it again with fewer --workers"):
        list(crew.each(killed, [1, 2]))


def test_it_is_as_large_as_the_processor_can_keep_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads, size in ((1, 1), (2, 2), (64, MOST)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert usual_size(torch.device("cpu")) == size
    assert usual_size(torch.device("cuda")) == 1


def test_two_processes_give_the_rows_and_temperatures_of_one(photos: Path, tmp_path: Path, one_thread: None) -> None:
    """Two crews in one test, since each process takes seconds to start."""
    torch.manual_seed(0)
    filler = Filler(ConditionalHVAE(PRESETS["tiny32"]), "untrained")
    request = Request({"first": filler}, (photos,), "centre,half", samples=5, bound_samples=2, baselines=("mean",))

    def run(folder: Path, workers: int) -> dict[str, str]:
        evaluation = Evaluation(request, folder)
        with evaluation.claimed():
            evaluation.run(lambda numbers, what: iter(numbers), workers)
        return {path.name: path.read_text() for path in sorted((folder / "rows").iterdir())}

    alone = run(tmp_path / "alone", 1)
    assert len(alone) == 4 and all(text.count("\n") == 6 for text in alone.values())
    assert run(tmp_path / "shared", 2) == alone

    cases = [Cases(request_source(request), "centre", 32, 3, range(2), 0)]
    found = []
    for workers in (1, 2):
        filler.model.temperatures.fill_(1)
        covered = temperatures.fit(filler, cases, 0, workers)
        found.append((covered, filler.model.temperatures.tolist()))
    assert found[0] == found[1] and np.isfinite(found[0][1]).all()


def request_source(request: Request) -> Source:
    return Evaluation(request, Path()).source
