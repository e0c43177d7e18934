"""Packaging: the wheel, the folder `passes`, the public names and the layout of the checkout."""

import ast
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dendrofx

ROOT = Path(__file__).parent.parent
NAMES = [
    "transform", "script", "graph_text", "graph_diff", "explain", "RoutedModule", "Plan", "SitePlan", "Site", "Sites", "find_sites",
    "tolerances", "set_tolerances", "LightForm", "LowRank", "Pruned", "Int8", "BFloat16", "Prepacked", "Transposed",
    "Precision", "RoutedBlocks", "Exit", "Options",
    "GateForm", "ResidualGate", "NoiseGate", "EnergyGate", "LearnedGate", "MarginGate", "UserGate", "AlwaysFull",
    "AlwaysLight", "NoGate", "RandomGate", "OracleGate", "Budget", "Certificate", "certificate", "save", "load", "LoadedModule",
    "map_batches",
    "Audit", "Shadow", "audit", "report", "Capability", "capability", "DendrofxError", "InputError", "CaptureError",
    "PassError", "PlanError", "ArtifactError", "CertificateError",
]  # fmt: skip
FOLDERS = {"dendrofx", "passes", "tests", "benchmarks", "docs", "examples", ".ci"}
FILES = {
    "setup.py", "README.md", "pyproject.toml", "constraints.txt", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", ".gitignore",
    ".pre-commit-config.yaml",
}  # fmt: skip


def python(*arguments: str, where: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python away from this checkout's import path."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env |= {"PYTHONPATH": str(path)} if path else {}
    return subprocess.run([sys.executable, *arguments], cwd=where, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays as it is."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("dendrofx", "passes"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    out = copy / "out"
    built = python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy), where=copy)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(target)]
    done = python("-m", "pip", "install", *options, str(wheel), where=target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_the_wheel_holds_every_module_once(wheel: Path) -> None:
    names = [n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n]
    assert len(names) == len(set(names))
    assert {n.partition("/")[0] for n in names} == {"dendrofx"}
    ours = {str(p.relative_to(ROOT)) for p in (ROOT / "dendrofx").rglob("*.py") if "passes" not in p.parts}
    passes = {f"dendrofx/passes/{p.relative_to(ROOT / 'passes')}" for p in (ROOT / "passes").rglob("*.py")}
    assets = {f"dendrofx/report/{name}" for name in ("page.html", "style.css", "page.js")}
    assert set(names) == ours | passes | assets | {"dendrofx/py.typed"}


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith("/METADATA")]
    metadata = archive.read(name).decode()
    core = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert sorted(core) == ["numpy", "scipy", "sympy", "tabulate", "torch", "tqdm"]
    assert set(re.findall(r"^Provides-Extra: (\w+)$", metadata, re.MULTILINE)) == {
        "bench",
        "cli",
        "browser",
        "test",
        "dev",
        "docs",
        "fuzz",
        "models",
        "onnx",
        "parquet",
        "peers",
        "serve",
        "ray",
    }
    assert set(re.findall(r"^Requires-Python: (.+)$", metadata, re.MULTILINE)) & {">=3.10,<3.14", "<3.14,>=3.10"}


@pytest.mark.slow
def test_the_installed_package_imports_and_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = (
        "import torch, dendrofx, dendrofx.passes as p; print(dendrofx.__file__); print(p.__file__);"
        "m = dendrofx.transform(torch.nn.Sequential(torch.nn.Linear(64, 64)).eval(), light=dendrofx.LowRank(4),"
        " options=dendrofx.Options(decide=False));"
        "print(m(torch.ones(2, 64)).shape[1], m.plan.sites[0].status)"
    )
    ran = python("-W", "error", "-c", code, where=tmp_path, path=installed)
    assert ran.returncode == 0, ran.stderr
    package, passes, result = ran.stdout.splitlines()
    assert Path(package) == installed / "dendrofx" / "__init__.py"
    assert Path(passes) == installed / "dendrofx" / "passes" / "__init__.py"
    assert result == "64 routed"


def test_passes_is_not_imported_by_its_bare_name() -> None:
    ran = python("-c", "import passes", where=ROOT)
    assert ran.returncode != 0
    assert "ImportError: this package is imported as dendrofx.passes, not as passes" in ran.stderr


def test_an_uninstalled_checkout_imports() -> None:
    ran = python("-c", "import dendrofx.passes; print(dendrofx.passes.__name__)", where=ROOT)
    assert (ran.returncode, ran.stdout) == (0, "dendrofx.passes\n"), ran.stderr
    link = ROOT / "dendrofx" / "passes"
    assert link.is_symlink()
    assert str(link.readlink()) == "../passes"


def test_public_names() -> None:
    assert dendrofx.__all__ == NAMES
    assert all(getattr(dendrofx, name).__doc__ for name in NAMES)
    rooms = {"gates", "guarantee", "light", "passes", "rows"}
    assert {name for name in dir(dendrofx) if not name.startswith("__")} == {*NAMES, *rooms}
    with pytest.raises(AttributeError, match=r"^module 'dendrofx' has no attribute 'transmute'$"):
        dendrofx.transmute  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_see_the_names_where_they_are_imported_from() -> None:
    (block,) = [
        n for n in ast.parse(Path(dendrofx.__file__).read_text(encoding="utf-8")).body if isinstance(n, ast.If)
    ][1:]
    imports = [n for n in block.body if isinstance(n, ast.ImportFrom)]
    seen = {a.name: str(n.module).removeprefix("dendrofx.") for n in imports for a in n.names}
    assert seen == dendrofx._MODULES  # type: ignore[attr-defined]
    assert set(seen) == set(NAMES)


FILES_NAMED_AS_FUNCTIONS = (
    "import dendrofx.transform, dendrofx.lowering.script, dendrofx.graph.find_sites, dendrofx.guarantee.audit,"
    " dendrofx.guarantee.certificate, dendrofx.machine.capability"
)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["from dendrofx import *", FILES_NAMED_AS_FUNCTIONS])
def test_a_public_name_is_never_a_file_whatever_was_imported_first(first: str) -> None:
    code = f"""
import importlib, pickle, sys, types
import dendrofx
dir(dendrofx), dendrofx.InputError
assert "torch" not in sys.modules
{first}
assert callable(dendrofx.transform) and dendrofx.light.LowRank is dendrofx.LowRank
{FILES_NAMED_AS_FUNCTIONS}
from dendrofx import transform, script, find_sites, audit, certificate, capability
assert not [n for n in dendrofx.__all__ if isinstance(getattr(dendrofx, n), types.ModuleType)]
assert transform is dendrofx.transform is importlib.import_module("dendrofx.transform").transform
"""
    ran = python("-c", code, where=ROOT)
    assert ran.returncode == 0, ran.stderr


def test_plans_are_read_where_nothing_else_was_imported(tmp_path: Path) -> None:
    site = dendrofx.SitePlan("fc", "routed", "", light=dendrofx.LowRank(8), gate=dendrofx.NoiseGate())
    plan = dendrofx.Plan([site], 0.1)
    plan.save(tmp_path / "plan.json")
    (tmp_path / "plan.pkl").write_bytes(pickle.dumps(plan))
    code = "import pickle, dendrofx; a = pickle.load(open('plan.pkl', 'rb')); assert a == dendrofx.Plan.load('plan.json'); print(a)"
    ran = python("-c", code, where=tmp_path, path=ROOT)
    assert ran.stdout == f"{plan}\n", ran.stderr


def test_top_level() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: only tracked files count")
    command = ["git", "-c", "safe.directory=*", "ls-files"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    parts = [name.split("/") for name in tracked]
    assert {p[0] for p in parts if len(p) > 1} == FOLDERS
    assert {p[0] for p in parts if len(p) == 1} == FILES


def test_constraints_are_exact_and_cover_what_is_needed() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    named = set(re.findall(r'"([A-Za-z][\w-]*)(?:==|>=)[\d.*]+"', setup)) | {"types-tabulate", "types-tqdm"}
    assert named >= {"torch", "numpy", "tabulate", "tqdm", "matplotlib", "pytest", "hypothesis", "ruff", "mypy"}
    assert named <= set(pins)


@pytest.mark.parametrize("file", ["setup.py", "dendrofx/__init__.py"])
def test_a_newer_python_is_refused_with_the_reason(file: str, tmp_path: Path) -> None:
    code = (
        "import setuptools, sys; sys.version_info = (3, 14, 0); sys.version = '3.14.0 (main)';"
        f"exec(compile(open({str(ROOT / file)!r}).read(), 'file', 'exec'))"
    )
    ran = python("-c", code, where=tmp_path)
    assert ran.returncode != 0
    wanted = (
        "dendrofx needs Python 3.10 to 3.13: it lowers to TorchScript, and torch 2.13 does not support TorchScript on"
    )
    assert wanted in ran.stderr
    assert "(this is 3.14.0)" in ran.stderr
