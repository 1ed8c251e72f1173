"""Puts the repository's other pages and files beside docs/ on the site, wherever a page links to them.

Pages are written so that their links hold in the repository. On the site docs/ is the root: `docs/web.md` is `web.md`
there, and `experiments/README.md` keeps its name. What pages link to outside docs/ comes along, page or file; a link to
a folder means its README.md. A link that leads nowhere is left as it is, and `mkdocs build --strict` fails on it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LINK = re.compile(r'(\]\(|(?:src|href)=")([^)\s"#]+)')
CODE = re.compile(r"^ *(```+|~~~+).*?^ *\1 *$|``.*?``|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def place(uri: str) -> str:
    """Where a page of the site lies in the repository."""
    return f"docs/{uri}" if (ROOT / "docs" / uri).exists() else uri


def meant(source: str, target: str) -> str | None:
    """The file of the repository that a link from `source` means; None for other addresses, and for nothing."""
    if re.match(r"[a-z]+:", target):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if (ROOT / path).is_dir():
        path = f"{path}/README.md"
    return path if (ROOT / path).is_file() else None


def prose(markdown: str) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it is prose and no code."""
    pieces, end = [], 0
    for code in CODE.finditer(markdown):
        pieces += [(markdown[end : code.start()], True), (code.group(), False)]
        end = code.end()
    return [*pieces, (markdown[end:], True)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Follow links from the pages there are, and take in what they lead to."""
    waiting = [file.src_uri for file in files if file.is_documentation_page()]
    for uri in [*_named(config.nav or []), config.theme["logo"], config.theme["favicon"]]:
        if files.get_file_from_path(uri) is None and (ROOT / uri).is_file():
            _take(uri, files, config, waiting)
    while waiting:
        source = place(waiting.pop())
        text = "".join(piece for piece, is_prose in prose((ROOT / source).read_text()) if is_prose)
        for _, target in LINK.findall(text):
            path = meant(source, target)
            if path and not path.startswith("docs/") and files.get_file_from_path(path) is None:
                _take(path, files, config, waiting)
    return files


def _take(path: str, files: Files, config: MkDocsConfig, waiting: list[str]) -> None:
    files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    if path.endswith(".md"):
        waiting.append(path)


def _named(nav: list) -> list[str]:
    """The pages that a nav names."""
    values = [next(iter(entry.values())) if isinstance(entry, dict) else entry for entry in nav]
    return [uri for value in values for uri in (_named(value) if isinstance(value, list) else [value])]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the repository's links into the site's."""
    source = place(page.file.src_uri)

    def turned(link: re.Match[str]) -> str:
        path = meant(source, link.group(2))
        if path is None:
            return link.group()
        uri = path.removeprefix("docs/")
        if link.group(1) == "](":
            return f"]({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}"
        file = files.get_file_from_path(uri)  # MkDocs turns Markdown's links, but not those of HTML
        return f"{link.group(1)}{file.url_relative_to(page.file)}" if file else link.group()

    return "".join(LINK.sub(turned, piece) if is_prose else piece for piece, is_prose in prose(markdown))
