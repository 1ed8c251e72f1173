"""What is said of the pictures of a source."""

import re
from collections.abc import Iterator

from manyfill.data.batch import Source
from manyfill.errors import DataError, PictureError

REPLACED = "\N{REPLACEMENT CHARACTER}"  # stands where the bytes of a caption were none of UTF-8

OTHER_SIDE = {
    case(side): case(other)
    for side, other in (("left", "right"), ("right", "left"))
    for case in (str.lower, str.capitalize, str.upper)
}
SIDES = re.compile(rf"\b({'|'.join(OTHER_SIDE)})\b")


def captions_at(source: Source, index: int) -> list[str]:
    """A picture's captions; PictureError for one that is no text."""
    captions = source.captions(index)
    if any(REPLACED in caption for caption in captions):
        raise PictureError(f"{source.name(index)}: its captions are not UTF-8; save them as UTF-8 text")
    return captions


def captions_of(source: Source) -> Iterator[str]:
    """All captions of a source in order; PictureError for one that is no text."""
    for index in range(len(source)):
        yield from captions_at(source, index)


def first_caption(source: Source) -> str:
    """The first caption that there is; DataError where there is none."""
    for index in range(len(source)):
        for caption in source.captions(index):
            return caption
    raise DataError(
        f"--captions: none of the {len(source)} pictures has one; write captions, one a line, into a .txt of each "
        "picture's name, or give a COCO .json, a .csv or a folder with a metadata.jsonl"
    )


def mirrored(caption: str) -> str:
    """A caption of the mirrored picture: the words left and right exchanged."""
    return SIDES.sub(lambda side: OTHER_SIDE[side[0]], caption)
