"""The documentation, read: every command has flags that exist, every block a language, every link an end.

`tests/test_docs_run.py` executes it.
"""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml
from documented import PAGES, ROOT, SHORTER, Block, blocks, commands

from manyfill.cli import app

LANGUAGES = {"sh", "python", "yaml", "text"}
ALL = [block for page in PAGES for block in blocks(page)]

# Every block that no test executes. Whoever adds one explains it here and to the reader.
NOT_TESTED = [
    ("README.md", "makes an environment and runs the tests themselves"),
    ("README.md", "needs the network; another test installs the wheel in a fresh environment"),
    ("CONTRIBUTING.md", "makes an environment and runs the tests themselves"),
    ("docs/bulk.md", "needs Slurm"),
    ("docs/bulk.md", "needs Ray; tests/test_bulk_ray.py does this where it is installed"),
    ("docs/captions.md", "hours of training"),
    ("docs/captions.md", "needs the model of the training above"),
    ("docs/captions.md", "downloads an encoder, then hours of training"),
    ("docs/export.md", "minutes of exporting"),
    ("docs/export.md", "needs the model exported above"),
    ("docs/howto/cluster.md", "needs two machines"),
    ("docs/howto/cluster.md", "needs Slurm"),
    ("docs/howto/share.md", "needs an account; a test does the same with a stand-in for the Hub"),
    ("docs/howto/share.md", "needs an account; a test does the same with a stand-in for the Hub"),
    ("docs/howto/share.md", "there is no such model"),
    ("docs/tutorial.md", "needs the network; another test installs the wheel in a fresh environment"),
    ("docs/web.md", "needs Docker"),
]


def of(*languages: str) -> list:
    return [pytest.param(b, id=f"{b.page}:{b.line}") for b in ALL if b.language in languages]


@pytest.mark.parametrize("block", [pytest.param(b, id=f"{b.page}:{b.line}") for b in ALL])
def test_every_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES, "fence it, as sh, python, yaml or text"


def test_nothing_is_left_out_of_the_tests_in_silence() -> None:
    assert [(block.page, block.untested) for block in ALL if block.untested] == NOT_TESTED
    hidden = [b for b in ALL if b.language in ("sh", "python") and "not tested" in b.text and not b.untested]
    assert hidden == [], "the mark belongs in a block's first line"


def test_no_command_hides_in_a_block_of_plain_text() -> None:
    started = re.compile(r"^\s*(\$ )?(manyfill|torchrun|python|pip) ", re.MULTILINE)
    assert [block for block in ALL if block.language == "text" and started.search(block.text)] == []


def test_every_rule_that_shortens_work_is_used() -> None:
    texts = "".join(block.text for block in ALL if not block.untested)
    assert [long for long in SHORTER if not re.search(long, texts)] == []


@pytest.mark.parametrize("block", of("sh"))
def test_every_command_and_flag_exists(block: Block) -> None:
    for arguments in commands(block.text):
        app.parse_args(arguments, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("block", of("python"))
def test_every_snippet_is_python(block: Block) -> None:
    compile(block.text, f"{block.page}:{block.line}", "exec")


@pytest.mark.parametrize("block", of("yaml"))
def test_every_manifest_is_yaml(block: Block) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(block.text))


def test_a_wrong_flag_would_be_noticed() -> None:
    text = "RANK=1 torchrun --no-python manyfill fill photo.png \\\n  --colour red  # manyfill nothing"
    (arguments,) = commands(text)
    assert arguments == ["fill", "photo.png", "--colour", "red"]
    with pytest.raises(Exception, match="colour"):
        app.parse_args(arguments, exit_on_error=False, print_error=False)


# --------------------------------------------------------------------------------------------------------- the site


class Page(HTMLParser):
    """What a page links to, and what in it can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors |= {name for name in (given.get("id"), given.get("name")) if name}
        self.links += [link for link in (given.get("href"), given.get("src")) if link]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    out = tmp_path_factory.mktemp("site")
    command = [str(Path(sys.executable).parent / "mkdocs"), "build", "--strict", "--site-dir", str(out)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr
    return out


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name not in ("404.html", "report.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if urlsplit(address).scheme:
                continue
            target = (path.parent / unquote(urlsplit(address).path)).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (anchor and target in pages and unquote(anchor) not in pages[target].anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert len(pages) > 30 and broken == []


def test_the_site_asks_no_other_host_for_anything(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not any(f'{tag} src="http' in text for tag in ("script", "img", "iframe")), path
        assert "fonts.googleapis" not in text, path


def test_what_the_site_is_made_of_is_on_it(site: Path) -> None:
    commands_page = (site / "reference/commands/index.html").read_text(encoding="utf-8")
    assert all(word in commands_page for word in ("fill-many", "--keep-levels", "benchmark"))
    assert "mkdocs" not in commands_page.partition("<article")[2].partition("</article")[0]
    python_page = (site / "reference/python/index.html").read_text(encoding="utf-8")
    assert all(word in python_page for word in ("push_to_hub", "bits_per_dim", "ModelError"))
