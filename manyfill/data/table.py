"""A CSV with two columns: a picture's path, and a caption of it; a picture may stand in several rows."""

import csv
from collections.abc import Iterator
from pathlib import Path

from manyfill.data.folder import is_picture
from manyfill.data.listed import ListedSource, folder_of
from manyfill.errors import DataError

WRITTEN = 'write lines such as 1.jpg,"a dog, running"'


def read_table(path: Path, folder: Path | None = None) -> ListedSource:
    """The pictures that a CSV lists, in its order; those that are not in `folder` fail when read.

    Left out, the folder is the CSV's own, or one beside it of its name or called `images`. A first line that names no
    picture heads the columns. DataError names the line that is none of its kind.
    """
    captions: dict[str, list[str]] = {}
    for name, caption in _rows(path):
        captions.setdefault(name, []).extend([caption] if caption else [])
    if not captions:
        raise DataError(f"{path}: lists no pictures; {WRITTEN}")
    beside = [path.parent, path.with_suffix(""), *(path.parent / name for name in ("images", "Images"))]
    return ListedSource(folder_of(path, beside if folder is None else [folder], list(captions)), captions)


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            for number, row in enumerate(lines):
                if not row or (number == 0 and not is_picture(row[0].rpartition("/")[2])):
                    continue
                if len(row) != 2 or not row[0]:
                    raise DataError(f"{path} line {lines.line_num}: has {len(row)} columns, not two; {WRITTEN}")
                yield row[0], row[1].strip()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no UTF-8 text; save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path} line {lines.line_num}: is no CSV ({error}); {WRITTEN}") from None
