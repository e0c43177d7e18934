"""No file imports itself through others, deferred imports and those for types included; `lint-imports` checks the rooms' order."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "dendrofx"


def modules(root: Path) -> dict[str, Path]:
    """Return every file of the package by its module's name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    passes = {
        f"{PACKAGE}.passes.{path.stem}".removesuffix(".__init__"): path for path in (root / "passes").glob("*.py")
    }
    return found | passes  # however the link in the package is followed


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of the package that a file names in imports, wherever they stand in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
    return found & set(known)


def cycle(root: Path) -> list[str]:
    """Return the modules of one circle, in the order of their imports; empty without one."""
    known = modules(root)
    try:
        TopologicalSorter({name: imported(path, known) for name, path in known.items()}).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_cycle_of_files() -> None:
    assert {"dendrofx.transform", "dendrofx.passes", "dendrofx.passes.base"} <= set(modules(ROOT))
    assert not cycle(ROOT)


@pytest.mark.parametrize(
    "text",
    [
        "from dendrofx.room import b\n",
        "import dendrofx.room.b\n",
        "def f():\n    from dendrofx.room.b import name\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dendrofx.room.b import Name\n",
        "from dendrofx.room import name\n",
    ],
    ids=["a module", "by its path", "in a function", "for a type", "through the room's own names"],
)
def test_a_cycle_is_seen(text: str, tmp_path: Path) -> None:
    files = {
        "__init__": "",
        "room/__init__": "from dendrofx.room.b import name\n",
        "room/b": "import dendrofx.room.a\n",
    }
    for name, code in (files | {"room/a": text}).items():
        file = tmp_path / PACKAGE / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
    assert "dendrofx.room.a" in cycle(tmp_path)
