"""Modules of a checkout of somebody else's repository, which knows nothing of being imported from here."""

import importlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from manyfill.errors import ConfigError


class _Nothing:
    """What a stand-in has under every name: it can be made and subclassed, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


class _StandIn(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # so that it passes for a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


class _StandIns(MetaPathFinder, Loader):
    """Stands in for packages, and all that is in them, which need not be installed for what is used here."""

    def __init__(self, packages: Sequence[str], given: Mapping[str, Any]) -> None:
        self.packages, self.given = packages, given

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.partition(".")[0] in self.packages else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _StandIn(spec.name)
        for name, value in self.given.items():
            package, _, attribute = name.rpartition(".")
            if package == spec.name:
                setattr(module, attribute, value)
        return module

    def exec_module(self, module: ModuleType) -> None: ...


@contextmanager
def _elsewhere(folder: Path, stand_ins: _StandIns) -> Iterator[None]:
    """Import from `folder` first; afterwards nothing of it, nor any stand-in, is left to be found by others."""
    before, names = dict(sys.modules), {path.stem for path in folder.iterdir()} | set(stand_ins.packages)
    hidden = [name for name in before if name.partition(".")[0] in names]
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    sys.meta_path.insert(0, stand_ins)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.meta_path.remove(stand_ins)
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            del sys.modules[name]
        sys.modules.update({name: before[name] for name in hidden})


def modules_of(
    flag: str,
    folder: Path,
    repository: str,
    names: Sequence[str],
    absent: Sequence[str],
    given: Mapping[str, Any] | None = None,
) -> list[ModuleType]:
    """The modules `names` of a checkout of `repository` that `flag` named; ConfigError if it is none.

    `absent` packages are stood in for, and have what is `given` under its dotted name.
    """
    needed = [Path(*name.split(".")) for name in names]
    missing = [path for path in needed if not any((folder / path).with_suffix(end).exists() for end in (".py", ""))]
    if missing:
        raise ConfigError(
            f"{flag} {folder}: is no checkout of {repository} ({missing[0]}.py is missing); "
            f"git clone https://{repository} and name that folder"
        )
    try:
        with _elsewhere(folder.resolve(), _StandIns(absent, given or {})):
            return [importlib.import_module(name) for name in names]
    except (ImportError, SyntaxError) as error:
        raise ConfigError(
            f"{flag} {folder}: cannot be imported ({error}); install what its requirements name, or leave {flag} out"
        ) from None


def origin(folder: Path, repository: str) -> dict[str, str]:
    """The repository and, of a git checkout, its commit."""
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        found = "unknown"
    return {"repository": repository, "commit": found if (folder / ".git").exists() else "unknown"}
