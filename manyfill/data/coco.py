"""COCO captions: one JSON that lists `images` (id, file_name) and `annotations` (image_id, caption)."""

import json
from pathlib import Path
from typing import Any

from manyfill.data.listed import ListedSource, folder_of
from manyfill.errors import DataError


def read_coco(path: Path, folder: Path | None = None) -> ListedSource:
    """The pictures that a COCO captions file lists, in its order; those that are not in `folder` fail when read.

    Left out, the folder is looked for as COCO is laid out: the JSON's own, or for annotations/captions_NAME.json, NAME
    beside `annotations`. DataError for another kind of file, or where no folder holds any of the pictures.
    """
    record = _parsed(path)
    names = dict[Any, str]()
    for image in record["images"]:
        if not (isinstance(image, dict) and isinstance(image.get("file_name"), str) and _is_id(image.get("id"))):
            raise _other(path, 'an image lacks "id" or "file_name"')
        names[image["id"]] = image["file_name"]
    captions: dict[str, list[str]] = {name: [] for name in names.values()}
    for annotation in record["annotations"]:
        if not (isinstance(annotation, dict) and isinstance(annotation.get("caption"), str)):
            raise _other(path, 'an annotation lacks "caption"')
        image = annotation.get("image_id")
        if not _is_id(image) or image not in names:
            raise _other(path, f"an annotation is of image {image}, which is not listed")
        captions[names[image]].append(annotation["caption"])
    return ListedSource(_folder(path, folder, captions), captions)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no JSON ({error}); copy it again") from None
    for key in ("images", "annotations"):
        if not isinstance(record, dict) or not isinstance(record.get(key), list):
            raise _other(path, f'it has no list "{key}"')
    return record


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str))


def _other(path: Path, why: str) -> DataError:
    return DataError(f"{path}: is no COCO captions file ({why}); give one such as captions_train2017.json")


def _folder(path: Path, given: Path | None, names: dict[str, list[str]]) -> Path:
    """Where the pictures lie."""
    part = path.stem.partition("_")[2]  # train2017 of captions_train2017
    beside = [path.parent, *(at / part for at in (path.parent, path.parent.parent, path.parent.parent / "images"))]
    return folder_of(path, [given] if given is not None else beside[: 4 if part else 1], list(names))
