"""What subcommands take alike: options that read the same, and the words for models and data at the end of a help text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

CUT = 64  # samples of a batch of data, where no size is asked for
FILE = click.Path(path_type=Path)
MODEL = """\b
MODEL  module:callable, called without arguments; a .pt2 file of torch.export.save;
       or a folder that transformers loads"""
DATA = """\b
DATA   .npy, .npz, .pt (weights only), .safetensors, .parquet (numbers, or lists of them);
       .txt, a text a line, for a folder with a tokenizer"""

Command = TypeVar("Command", bound=Callable[..., Any])


def output(metavar: str, said: str, default: str | None = None) -> Callable[[Command], Command]:
    """Return the option that says where a subcommand writes; required where there is no default."""
    given: dict[str, Any] = {"required": True} if default is None else {"default": default, "show_default": True}
    return click.option("-o", "--output", metavar=metavar, type=FILE, help=said, **given)


def data(name: str, said: str) -> Callable[[Command], Command]:
    """Return a required option for a file of data."""
    return click.option(name, required=True, metavar="DATA", type=FILE, help=said)


def batch(said: str) -> Callable[[Command], Command]:
    """Return the option for the samples of a call, of which `Several` reads more than one."""
    return click.option("--batch", type=click.IntRange(1), multiple=True, metavar="N...", help=said)


def max_sample_deviation() -> Callable[[Command], Command]:
    """Return the option for what single samples may deviate by."""
    size = click.FloatRange(0, 1, min_open=True)
    return click.option("--max-sample-deviation", type=size, metavar="X", help="Of any calibration sample, at most.")


def dead_rows() -> Callable[[Command], Command]:
    """Return the option that names a mask."""
    return click.option("--dead-rows", metavar="NAME", help="Input that marks padding by zeros; ~NAME: by ones.")
