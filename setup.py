"""Packaging. The folder `passes/` is imported as `dendrofx.passes`; tool settings are in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup

if sys.version_info >= (3, 14):
    sys.exit(
        "dendrofx needs Python 3.10 to 3.13: it lowers to TorchScript, and torch 2.13 does not support TorchScript on"
        f" Python 3.14 and newer (this is {sys.version.split()[0]})."
    )

VERSION = Path("dendrofx/version.py").read_text(encoding="utf-8").split('VERSION = "')[1].split('"')[0]

ROOMS = (
    "artifact",
    "branchless",
    "command",
    "compare",
    "formats",
    "gates",
    "graph",
    "graph.capture",
    "guarantee",
    "light",
    "lowering",
    "machine",
    "passes",
    "plan",
    "report",
    "request",
    "rewriting",
    "rows",
    "runtime",
    "scale",
    "search",
    "search.cascade",
    "statistics",
    "values",
)

setup(
    name="dendrofx",
    version=VERSION,
    description="Per-row conditional branches for trained PyTorch models on CPUs: a torch.fx pass with honest measurements.",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.14",
    packages=["dendrofx", *[f"dendrofx.{room}" for room in ROOMS]],
    package_dir={"dendrofx": "dendrofx", "dendrofx.passes": "passes"},
    package_data={"dendrofx": ["py.typed"], "dendrofx.report": ["page.html", "style.css", "page.js"]},
    install_requires=["torch==2.13.*", "numpy>=1.26", "scipy>=1.11", "sympy>=1.13", "tabulate>=0.9", "tqdm>=4.60"],
    entry_points={"console_scripts": ["dendrofx=dendrofx.command.main:main"]},
    extras_require={
        "cli": ["click>=8.1"],
        "bench": ["click>=8.1", "matplotlib>=3.8"],
        "parquet": ["pyarrow>=15"],
        "onnx": ["onnx>=1.18", "onnxruntime>=1.22", "onnxscript>=0.5"],
        "ray": ["ray[data]>=2.60", "pyarrow>=15"],
        "browser": ["selenium>=4.30"],
        "serve": ["fastapi>=0.115", "uvicorn>=0.34", "locust>=2.32"],
        "fuzz": ["atheris>=3"],
        "models": ["transformers>=5.23", "tokenizers>=0.22", "safetensors>=0.5", "sentence-transformers>=6"],
        "peers": [
            "onnx>=1.18",
            "onnxruntime>=1.22",
            "onnxscript>=0.5",
            "openvino>=2026.1",
            "nncf>=3.0",
            "torchao>=0.14",
        ],
        "test": [
            "click>=8.1",
            "pytest>=8",
            "pytest-xdist>=3.8",
            "hypothesis>=6",
            "build>=1",
            "setuptools>=77",
            "matplotlib>=3.8",
        ],
        "dev": ["ruff>=0.11", "mypy>=1.15", "import-linter>=2.5", "types-tabulate", "types-tqdm"],
        "docs": ["sphinx>=8", "myst-parser>=4", "furo>=2024.8.6"],
    },
)
