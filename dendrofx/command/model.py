"""Read a model from what a person names on a command line."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dendrofx.errors import InputError
from dendrofx.graph.show import first_line

FORMS = "module:callable, a .pt2 file of torch.export.save, or a folder that transformers loads"


@dataclass(frozen=True)
class Read:
    """A model in eval mode, and the tokenizer that lies in its folder."""

    module: nn.Module
    tokenizer: Any = None


def read_model(text: str) -> Read:
    """Return the model that is named.

    Args:
        text: `module:callable`, with the working directory on the path; a `.pt2` file; or a folder, of which local files are read.

    Raises:
        InputError: it names none; what was expected, and the next step.
    """
    path = Path(text)
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".pt2":
        return Read(_program(path))
    if ":" in text:
        return Read(_called(text))
    said = "there is nothing of that name" if not path.exists() else "this is none of them"
    raise InputError(f"cannot read the model {text}: {said}. A model is {FORMS}")


def read_tokenizer(path: Path) -> Any:  # noqa: ANN401  (transformers')
    """Return the tokenizer in a folder; raise `InputError` where there is none."""
    transformers = _transformers(path)
    try:
        return transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:
        raise InputError(f"{path} holds no tokenizer that transformers loads: {first_line(error)}") from error


def _called(text: str) -> nn.Module:
    name, _, attribute = text.partition(":")
    sys.path.insert(0, here := str(Path.cwd()))
    try:
        found: Any = importlib.import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
        made = found() if callable(found) and not isinstance(found, nn.Module) else found
    except (ModuleNotFoundError, AttributeError) as error:
        raise InputError(f"cannot read the model {text}: {first_line(error)}. A model is {FORMS}") from error
    except Exception as error:  # whatever the caller's own code raises
        raise InputError(
            f"cannot read the model {text}: it raised {type(error).__name__}: {first_line(error)}. It is called without arguments;"
            f" to see where it fails: python -c 'import {name}; {name}.{attribute}()'"
        ) from error
    finally:
        sys.path.remove(here)
    if not isinstance(made, nn.Module):
        raise InputError(f"{text} gives a {type(made).__name__}, not a torch.nn.Module: name what returns the model")
    return made.eval()


def _program(path: Path) -> nn.Module:
    try:
        made: nn.Module = torch.export.load(path).module()
    except Exception as error:
        raise InputError(
            f"cannot read {path} as a torch.export program: {first_line(error)}. Write it with torch.export.save"
        ) from error
    for module in made.modules():
        module.training = False  # an exported program has no eval(): it was exported in the mode that it has
    return made


def _folder(path: Path) -> Read:
    """Return the model of a folder in the class that its config names."""
    config = path / "config.json"
    if not config.is_file():
        raise InputError(f"{path} is a folder without config.json: name one that save_pretrained of transformers wrote")
    transformers = _transformers(path)
    transformers.utils.logging.disable_progress_bar()
    try:
        names = json.loads(config.read_text(encoding="utf-8")).get("architectures") or ["AutoModel"]
        kind = getattr(transformers, names[0], transformers.AutoModel)
        made: nn.Module = kind.from_pretrained(path, local_files_only=True)
    except Exception as error:
        raise InputError(f"transformers cannot load {path}: {first_line(error)}") from error
    return Read(made.eval(), read_tokenizer(path) if _has_tokenizer(path) else None)


def _has_tokenizer(path: Path) -> bool:
    return any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"))


def _transformers(path: Path) -> Any:  # noqa: ANN401  (the module)
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise InputError(f"{path} is a folder, which transformers loads: pip install 'dendrofx[models]'") from None
