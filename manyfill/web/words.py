"""Messages of the library and of its checkers in the words of the web, where there are no flags."""

import re
from collections.abc import Sequence
from typing import Any

from manyfill.errors import ManyfillError

WORDS = {
    "; shrink it or raise --max-pixels": "; shrink it",
    "--max-memory: these fills": "n: these fills",
    "; allow that or ask for fewer (-n)": ", more than this server may use; ask for fewer, or send a smaller picture",
    "convert it or change --model": "convert it to grey",
    "-n ": "n ",
}
FLAG = re.compile(r"(?<!\S)--([a-z-]+)")  # its field has the same name, with _ for -
NO_ID = "there is none of this id; take that of the event done, or of the header Manyfill-Result"
NO_FILE = "must be sent as a file of a multipart form, not as text: paths and addresses are not read"


def plain(said: ManyfillError | str) -> str:
    """An error or a note in one line, for people who see no command line."""
    text = " ".join(str(said).split())
    for flag, word in WORDS.items():
        text = text.replace(flag, word)
    return FLAG.sub(lambda flag: flag[1].replace("-", "_"), text)


def in_full(status: int, said: str, method: str, allowed: str) -> str:
    """What the framework says of a refusal in few words, with what is accepted."""
    if said == "Not Found":
        return "there is nothing here; the page is at / and the API is told of at /docs"
    if status == 405:
        return f"{method} is not answered here; send {allowed}"
    if status == 400:
        return f"the form cannot be read ({said.rstrip('.')}); send multipart/form-data, as /docs tells"
    return said


def faults(errors: Sequence[dict[str, Any]]) -> str:
    """What pydantic found wrong with a request, in one line."""
    return "; ".join(dict.fromkeys(map(_fault, errors)))


def _fault(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"] if part not in ("body", "query", "path", "header"))
    message = str(error["msg"])
    if "UploadFile" in message:
        message = NO_FILE
    elif error["type"] == "string_pattern_mismatch":
        message = NO_ID
    elif error["type"] == "missing":
        message = "is missing; send it in a multipart form"
    return f"{where or 'body'}: {message[0].lower()}{message[1:]}"
