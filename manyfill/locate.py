"""From what a user calls a model to the directory that holds it."""

from pathlib import Path

from manyfill.errors import ModelError
from manyfill.manifest import first_line, recover

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT_MODEL = WEIGHTS / "multiscale64"


def shipped() -> dict[str, Path]:
    """The directories of the models that come with the library, by name."""
    others = sorted(path.parent for path in WEIGHTS.glob("*/config.json") if path.parent != DEFAULT_MODEL)
    return {"default": DEFAULT_MODEL, **{path.name: path for path in others}}


def _is_shipped(source: str | Path) -> bool:
    """Whether it is a shipped model's name, which but for "default" a directory of that name takes precedence over."""
    return str(source) == "default" or (str(source) in shipped() and not Path(source).exists())


def looks_like_model(source: str) -> bool:
    """Whether a word of a user's names a model rather than data: a shipped one's name, a directory or a hub id."""
    path = Path(source)
    recover(path)
    return _is_shipped(source) or (path / "config.json").is_file() or (not path.exists() and _is_hub_id(source))


def _is_hub_id(source: str) -> bool:
    return source.count("/") == 1 and not source.startswith((".", "/", "~"))


def locate(source: str | Path) -> Path:
    """The directory of a shipped model, a directory or a hub id "owner/name"; ModelError if there is none."""
    if _is_shipped(source):
        return shipped()[str(source)]
    recover(Path(source))
    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, str) and _is_hub_id(source):
        return _download(source)
    names = ", ".join(f"'{name}'" for name in shipped())
    raise ModelError(f"{source}: no such model; give a model directory, a hub id 'owner/name' or one of {names}")


def _download(repo: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repo))
    except Exception as error:  # the hub, proxies and sockets raise kinds that have nothing in common
        raise ModelError(f"{repo}: neither a directory here nor to be had from the hub ({first_line(error)})") from None


def stored_at(source: str) -> Path:
    """The directory of a model that is to be changed in place; ModelError for one that comes from the hub."""
    if not _is_shipped(source) and not Path(source).is_dir():
        raise ModelError(f"{source}: comes from the hub, where nothing can be stored; calibrate a copy in a directory")
    return locate(source)
