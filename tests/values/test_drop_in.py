"""Where a model stood, the routed one stands: called by `forward` and by libraries that know the original."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

import dendrofx
from dendrofx.light import LowRank
from tests.graph.capture.calls import Flags
from tests.graph.capture.models import WIDTH, Base

TEXTS = ["the cat sat on the mat .", "a dog", "the dog runs fast , the cat runs slow on a mat", "cat"]
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*MARKS, "the", "a", "cat", "dog", "sat", "on", "mat", "runs", "fast", "slow"]


class Speaks(Base):
    """Has more to say than what it computes."""

    classes = ("a", "b")

    def __init__(self) -> None:
        super().__init__()
        self.config = {"width": WIDTH}

    @property
    def device(self) -> torch.device:
        """As Hugging Face's models have it."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The same."""
        return next(self.parameters()).dtype

    def can_generate(self) -> bool:
        """The same."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


def transformed(model: nn.Module, example: Any) -> dendrofx.RoutedModule:
    return dendrofx.transform(model.eval(), example, budget=0, options=dendrofx.Options(decide=False))


def test_forward_is_the_call() -> None:
    x, mask = torch.randn(4, WIDTH), torch.ones(4)
    model = Flags().eval()
    routed = transformed(model, (x, mask))
    with torch.no_grad():
        for call in (routed, routed.forward):
            assert torch.equal(call(x, mask=mask)["y"], model(x, mask)["y"])
            assert torch.equal(call(x, mask, None, scale=1.0, twice=False)["y"], model(x, mask)["y"])
            with pytest.raises(dendrofx.InputError, match=r"cannot take scale=2\.0: "):
                call(x, mask, scale=2.0)
        output, counts = routed.forward_counted(x, mask=mask)
    assert torch.equal(output["y"], model(x, mask)["y"])
    assert counts == {}


def test_a_routed_part_scripts_with_the_model_around_it() -> None:
    model = nn.Sequential(nn.Linear(8, WIDTH), Speaks()).eval()
    model[1] = dendrofx.transform(
        model[1], torch.randn(4, WIDTH), light=LowRank(2), options=dendrofx.Options(decide=False)
    )
    x = torch.randn(5, 8)
    assert model[1].plan.routed
    torch.testing.assert_close(torch.jit.script(model)(x), model(x))


@pytest.mark.parametrize("trip", ["as made", "copied", "pickled"])
def test_questions_to_the_original_are_answered(trip: str) -> None:
    model = Speaks().eval()
    routed = transformed(model, torch.randn(4, WIDTH))
    trips: dict[str, Any] = {"copied": copy.deepcopy, "pickled": lambda m: pickle.loads(pickle.dumps(m))}
    routed = trips.get(trip, lambda m: m)(routed)
    assert routed.config == model.config
    assert (routed.device, routed.dtype, routed.classes) == (model.device, model.dtype, model.classes)
    assert routed.can_generate() is False
    assert type(routed).__name__ == "Speaks"
    for name in ("mlp_", "_secret"):
        with pytest.raises(AttributeError):
            getattr(routed, name)


# ------------------------------------------------------------------------------------------------- the real libraries


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of a few words."""
    made = tmp_path_factory.mktemp("bert")
    (made / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return made


def bert(kind: str) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=len(WORDS)
    )
    return getattr(transformers, kind)(config).eval()


TASKS = {
    "feature-extraction": "BertModel",
    "text-classification": "BertForSequenceClassification",
    "token-classification": "BertForTokenClassification",
}


def _leaves(answer: Any) -> tuple[list[float], list[Any]]:
    """The numbers of a tree, and beside them its form, the types of the numbers, and its other leaves."""
    leaves, form = tree_flatten(answer)
    numbers = [leaf for leaf in leaves if isinstance(leaf, float | np.floating)]
    return numbers, [form, *(type(v) if isinstance(v, float | np.floating) else v for v in leaves)]


@pytest.mark.real("transformers")
@pytest.mark.parametrize("task", TASKS)
def test_transformers_pipelines_take_it_as_the_model(
    task: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import BertTokenizerFast, pipeline

    model, tokenizer = bert(TASKS[task]), BertTokenizerFast(str(folder / "vocab.txt"))
    routed = transformed(model, dict(tokenizer(TEXTS[:3], padding=True, return_tensors="pt")))
    for size in (1, 3):
        wanted, got = (pipeline(task, model=m, tokenizer=tokenizer, batch_size=size)(TEXTS) for m in (model, routed))
        (numbers, words), (others, same_words) = _leaves(got), _leaves(wanted)
        assert words == same_words
        np.testing.assert_allclose(numbers, others, rtol=0, atol=1e-5, equal_nan=False)
    assert "not supported" not in capfd.readouterr().err


@pytest.mark.real("transformers", "sentence_transformers")
def test_sentence_transformers_encode_with_its_inner_model_replaced(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertTokenizerFast

    bert("BertModel").save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    encoder = SentenceTransformer(modules=[Transformer(str(folder)), Pooling(32)], device="cpu")
    wanted = {size: encoder.encode(TEXTS, batch_size=size) for size in (1, 4)}
    example = dict(encoder.tokenizer(TEXTS, padding=True, return_tensors="pt"))
    inner = encoder[0].model
    encoder[0].model = dendrofx.transform(
        inner, example, dead_rows="attention_mask", budget=0, options=dendrofx.Options(decide=False)
    )
    assert encoder[0].auto_model is encoder[0].model  # which only reads it: what is assigned to auto_model is not used
    for size, embeddings in wanted.items():
        np.testing.assert_allclose(encoder.encode(TEXTS, batch_size=size), embeddings, atol=1e-5)
