"""The documentation, executed: every sh and python block, page by page from top to bottom, on a newcomer's machine."""

from pathlib import Path

import pytest
from documented import PAGES, ROOT, blocks, furnish
from newcomer import distributions, environment, session

TESTED = {page: [b for b in blocks(page) if b.language in ("sh", "python") and not b.untested] for page in PAGES}
RUN = {page: found for page, found in TESTED.items() if found}


@pytest.fixture(scope="module")
def bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer")
    return environment(folder / "venv", distributions(folder / "dist")["wheel"])


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_does_what_it_says(page: Path, bin: Path, tmp_path: Path) -> None:
    if page.name != "tutorial.md":  # which makes its own pictures
        furnish(tmp_path)
    with session(tmp_path, bin) as opened:
        for block in RUN[page]:
            opened.execute(block)


@pytest.mark.slow
def test_a_block_that_fails_is_told_with_its_place(bin: Path, tmp_path: Path) -> None:
    page = RUN[ROOT / "README.md"]
    shell, python = (next(b for b in page if b.language == language) for language in ("sh", "python"))
    with session(tmp_path, bin) as opened:
        for block in (shell, python):  # there is no photo.jpg here
            with pytest.raises(AssertionError, match=rf"README.md:{block.line}\n(.*\n)*.*photo.jpg"):
                opened.execute(block)


def test_readmes_first_snippet_fills_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    snippet = next(block for block in RUN[ROOT / "README.md"] if block.language == "python")
    exec(compile(snippet.shortened, "README.md", "exec"), {})
    assert (tmp_path / "fills" / "fill-00.jpg").is_file()
