"""What an older version wrote is refused by name: pickles here, plans and certificates beside their own tests."""

import importlib
import importlib.util
import pickle
import re

import pytest

import dendrofx
from dendrofx.version import MOVED, VERSION

SAYS = f"in dendrofx {VERSION}: what names it, such as a pickle, was written with 0.4.0 or older. Load it with the version that"


@pytest.mark.parametrize(
    ("module", "gone"), [("module", "module"), ("cascade.models", "cascade"), ("light.branch", "light.branch")]
)
def test_an_old_pickle_says_that_it_is_one(module: str, gone: str) -> None:
    old = f"cdendrofx.{module}\n_rebuilt\n.".encode()  # how a pickle begins that names a function there
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"no module named 'dendrofx.{gone}' {SAYS}")):
        pickle.loads(old)


def test_modules_that_have_moved_are_gone_and_others_are_simply_not_there() -> None:
    assert importlib.util.find_spec("dendrofx.nothing") is None
    for name in MOVED:
        with pytest.raises(ModuleNotFoundError, match="was written with"):
            importlib.import_module(f"dendrofx.{name}")
    assert dendrofx.__version__ == VERSION
