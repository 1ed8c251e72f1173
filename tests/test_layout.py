"""How the house is laid out: who may import whom, and what nobody may import. Modules are read, never run."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import manyfill

PACKAGE = Path(manyfill.__file__).parent
LONGEST_FILE = 350

# From the ground up; a module may import from its own layer and from those below.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        *("errors", "progress", "rng", "rank", "files", "distributions", "html", "plots", "device", "quantiles"),
        *("flags", "processors", "manifest", "originals", "formats", "decode", "images", "encode", "masks", "membrane"),
    ),
    ("models",),
    ("locate", "checkpoint", "hub", "runtime", "data", "diagnostics", "crop", "caption", "recipe", "octaves"),
    ("pipeline", "inputs", "completions", "likelihood", "effort", "drawing", "train", "export"),
    ("__init__",),
    ("evaluate", "benchmark", "bulk", "diagnose", "web"),
    (
        *("cli", "cli_adapt", "cli_benchmark", "cli_data", "cli_diagnose", "cli_export", "cli_fill", "cli_hub"),
        *("cli_info", "cli_steer", "cli_web", "demo"),
    ),
    ("__main__",),
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
APART = ({"train", "evaluate"},)
BANNED = ("torchvision", "lpips", "piq", "pickle", "dill", "cloudpickle", "joblib", "shelve", "torch.load", "torch.hub")


def module_name(path: Path, package: Path) -> str:
    """`models.hvae` for models/hvae.py, `models` for models/__init__.py, `__init__` for the package itself."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(tree: ast.Module) -> Iterator[str]:
    """Every dotted name that a module imports anywhere in it, late and type-checking imports too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph(package: Path) -> dict[str, set[str]]:
    """Each module of a package, and the modules of the package that it imports."""
    modules = {module_name(path, package): ast.parse(path.read_text()) for path in package.rglob("*.py")}
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, tree in modules.items():
        for imported in imports(tree):
            first, *parts = imported.split(".")
            if first != package.name or parts == ["__version__"]:  # the version is no part of the house
                continue
            # The longest prefix that is a module; what remains is a name within it.
            known = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            found[name].add(next((prefix for prefix in known if prefix in modules), "__init__"))
    return {name: targets - {name} for name, targets in found.items()}


def part(module: str) -> str:
    return module.split(".")[0]


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Imports against the layers, or between parts that are to stay apart."""
    return [
        f"{name} imports {target}"
        for name, targets in edges.items()
        for target in sorted(targets)
        if RANK[part(target)] > RANK[part(name)] or {part(name), part(target)} in APART
    ]


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """The modules of one import cycle, or none. A package's `__init__` counts as its own module."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def dotted(node: ast.AST) -> str:
    """`torch.hub.load` of that expression; "" of anything else."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def banned(tree: ast.Module) -> list[str]:
    used = [*imports(tree), *(dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))]
    return [name for name in used if any(f"{name}.".startswith(f"{bad}.") for bad in BANNED)]


# ---------------------------------------------------------------------------------------------------- our house


def test_every_module_has_a_layer() -> None:
    strangers = {part(name) for name in graph(PACKAGE)} - RANK.keys()
    assert not strangers, "give each a place in LAYERS, and in docs/design.md"


def test_nothing_imports_upwards() -> None:
    assert upward(graph(PACKAGE)) == []


def test_no_cycles() -> None:
    assert cycle(graph(PACKAGE)) == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: module_name(path, PACKAGE))
def test_files_are_short_and_use_nothing_banned(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    assert banned(ast.parse(text)) == []
    assert "allow_pickle" not in text


# -------------------------------------------------------------------------------------- the rules can be broken


def built(folder: Path, **modules: str) -> dict[str, set[str]]:
    """The graph of a package `manyfill` of these modules, `__` for a dot in their names."""
    for name, text in modules.items():
        path = folder / "manyfill" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return graph(folder / "manyfill")


def test_the_rules_notice_an_upward_import_however_it_is_written(tmp_path: Path) -> None:
    edges = built(
        tmp_path,
        train__loop="",
        evaluate__run="def late():\n    from manyfill.train import loop",
        rng="import manyfill.models.config",
        masks="from manyfill import cli, rng",
        images="from manyfill.models.config import ModelConfig",
        models__config="from manyfill import __version__, errors\nimport torch",
        data__loader="if TYPE_CHECKING:\n    from manyfill import Filler",
        errors="",
        cli="import manyfill.train.loop",
    )
    assert sorted(upward(edges)) == [
        "data.loader imports __init__",
        "evaluate.run imports train.loop",
        "images imports models.config",
        "masks imports cli",
        "rng imports models.config",
    ]


def test_the_rules_notice_a_cycle(tmp_path: Path) -> None:
    edges = built(
        tmp_path,
        inputs="from manyfill.completions import a",
        completions="from manyfill.pipeline import b",
        pipeline="def late():\n    from manyfill.inputs import c",
    )
    assert upward(edges) == [] and set(cycle(edges)) == {"inputs", "completions", "pipeline"}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import torchvision.transforms as T",
        "from torch import load",
        "x = torch.load(path)",
        "torch.hub.load('a', 'b')",
    ],
)
def test_the_rules_notice_what_is_banned(text: str) -> None:
    assert banned(ast.parse(text))
    assert not banned(ast.parse("import torch\nfrom torchmetrics import Metric\ntorch.loader, x.torch.load"))
