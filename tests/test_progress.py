"""Long loops tell how far they are to whoever follows, and are the same loops when nobody does."""

import time

import pytest

from manyfill import progress
from manyfill.progress import bar, followed, following


def test_nobody_follows() -> None:
    assert list(followed([1, 2, 3], "numbers")) == [1, 2, 3]


def test_whoever_follows_gets_every_item_and_its_name() -> None:
    seen: list[tuple[int, str]] = []

    def show(items, what: str):
        for item in items:
            seen.append((item, what))
            yield item

    with following(show):
        assert list(followed([1, 2], "numbers")) == [1, 2]
    assert list(followed([3], "numbers")) == [3]
    assert seen == [(1, "numbers"), (2, "numbers")]


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_a_bar_gives_every_item_once(count: int, patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", patience)
    assert list(bar(range(count), "numbers")) == list(range(count))


@pytest.mark.parametrize("patience,shown", [(0.05, True), (60.0, False)])
def test_a_bar_shows_for_long_work_on_a_terminal_alone(
    patience: float, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", patience)
    for terminal in (True, False):
        monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
        if not terminal:
            monkeypatch.delenv("FORCE_COLOR")
        for _ in bar(range(8), "numbers"):
            time.sleep(0.02)
        told = capsys.readouterr()
        assert told.out == "" and ("numbers" in told.err) == (shown and terminal)


def test_an_evaluation_tells_in_lines_how_far_it_is_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    from manyfill.evaluate import command

    clock = iter([0.0, 0.0, 20.0, 40.0, 40.0, 60.0])
    monkeypatch.setattr(command, "monotonic", lambda: next(clock))
    assert list(command._progress(range(4), "default, centre")) == [0, 1, 2, 3]
    assert capsys.readouterr().err == "default, centre: 0 of 4 pictures\ndefault, centre: 2 of 4 pictures\n"
