"""The loaders of real models and real data, and the transformers that are built from configurations."""

import itertools
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from benchmarks.models import antiberty, hf, minilm, packages, rxnmapper, text
from benchmarks.models.encoder import pad
from benchmarks.models.text import Sentence


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    return text.load_sentences()


@pytest.fixture(scope="module")
def encoder() -> nn.Module:
    return minilm.load_model()


@torch.no_grad()
def embedded(model: nn.Module, ids: list[list[int]]) -> Tensor:
    rows: Tensor = model(**pad(ids))
    return rows


def same_alone_and_in_a_padded_batch(model: nn.Module, ids: list[list[int]]) -> bool:
    assert len({len(row) for row in ids}) > 1
    alone = torch.cat([embedded(model, [row]) for row in ids])
    return torch.allclose(embedded(model, ids), alone, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ packages


@pytest.mark.real
@pytest.mark.parametrize("module", [minilm, antiberty, rxnmapper])
def test_a_missing_library_is_told(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    case = module.__name__.rpartition(".")[2]
    assert packages.require(case).is_dir()
    assert not packages.missing()
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "transformers" else find_spec(name))
    assert packages.missing() == packages.missing(case) == ["transformers"]
    with pytest.raises(packages.CaseUnavailableError, match=f"^case '{case}' needs transformers: pip install "):
        module.load_model()


# ----------------------------------------------------------------------------------------------------------- sentences


@pytest.mark.real
def test_sentences_are_real_and_each_there_once(sentences: list[Sentence]) -> None:
    assert len(sentences) == 23555
    assert len({s.text.lower() for s in sentences}) == len(sentences)
    assert {s.domain for s in sentences} == {"product", "film", "editorial", "tweet"}
    assert all(s.text.strip() and -4 <= s.rating <= 4 for s in sentences)
    assert sentences == text.load_sentences()


@pytest.mark.real
def test_a_document_is_on_one_side_of_the_split(sentences: list[Sentence]) -> None:
    training, others = text.split(sentences, 1000)
    assert 1000 <= len(training) < 1050
    assert not {s.document for s in training} & {s.document for s in others}
    assert {s.text for s in training} | {s.text for s in others} == {s.text for s in sentences}
    assert (training, others) == text.split(sentences, 1000)


@pytest.mark.real
def test_tokens_are_cut_and_padded_on_the_right() -> None:
    ids = text.tokenize(["A dog runs.", "dog " * 1000])
    assert ids[0] == [101, 1037, 3899, 3216, 1012, 102]
    assert len(ids[1]) == 256
    batch = text.pad(ids)
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    assert batch["attention_mask"].sum(1).tolist() == [6, 256]
    assert batch["input_ids"][0, 6:].eq(0).all()


# -------------------------------------------------------------------------------------------------------- real models


@pytest.mark.real
def test_similar_sentences_are_closer_than_unrelated_ones(encoder: nn.Module) -> None:
    texts = ["A man is eating food.", "Someone eats a meal.", "The central bank raised interest rates."]
    rows = embedded(encoder, text.tokenize(texts))
    assert rows.shape == (3, 384)
    assert torch.allclose(rows.norm(dim=1), torch.ones(3))
    near, far = rows[0] @ rows[1], rows[0] @ rows[2]
    assert near > 0.6
    assert far < 0.2


@pytest.mark.real
def test_a_sentence_embeds_alone_as_in_a_padded_batch(encoder: nn.Module, sentences: list[Sentence]) -> None:
    assert not encoder.training
    assert same_alone_and_in_a_padded_batch(encoder, text.tokenize([s.text for s in sentences[::2000]]))


@pytest.mark.real
def test_the_encoder_exports_with_dynamic_batch_and_tokens(encoder: nn.Module) -> None:
    example = pad(text.tokenize(["A dog runs.", "No."]))
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=512)}
    exported = torch.export.export(encoder, (), example, dynamic_shapes=dict.fromkeys(example, sizes)).module()
    ids = text.tokenize(["Dogs run.", "It is.", "What a long and winding road this is."])
    assert torch.allclose(embedded(exported, ids), embedded(encoder, ids), rtol=0, atol=1e-6)


@pytest.mark.real
def test_the_classifier_is_right_on_sentences_it_never_saw() -> None:
    training, others = minilm.load_data()
    assert len(training) == pytest.approx(minilm.TRAIN, abs=50)
    test = others[:600]
    decided, wanted = minilm.outputs(minilm.load_classifier(), test).argmax(1), minilm.labels(test)
    assert len(minilm.CLASSES) == 8
    assert (decided == wanted).float().mean() > 0.6, "the largest class has 23 %"
    assert (decided // 2 == wanted // 2).float().mean() > 0.82, "domain; the largest has 45 %"
    assert (decided % 2 == wanted % 2).float().mean() > 0.7, "sign of the rating; the larger has 54 %"


@pytest.mark.real
def test_antibody_sequences_of_one_chain_are_close() -> None:
    sequences = antiberty.load_sequences()
    assert len(sequences) == 1454
    assert {s.chain for s in sequences} == {"heavy", "kappa", "lambda"}
    some = sequences[::24]
    ids = antiberty.tokenize([s.residues for s in some])
    model = antiberty.load_model()
    rows = embedded(model, ids)
    assert rows.shape == (len(some), 512)
    assert rows.isfinite().all()
    assert same_alone_and_in_a_padded_batch(model, ids[::15])
    nearest = (rows @ rows.T - 2 * torch.eye(len(rows))).argmax(1).tolist()
    assert sum(s.chain == some[n].chain for s, n in zip(some, nearest, strict=True)) > 0.95 * len(some)


@pytest.mark.real
def test_reactions_of_one_kind_are_close() -> None:
    reactions = rxnmapper.synthetic_reactions()
    assert len(reactions) == len(set(reactions)) == 756
    assert all("".join(rxnmapper.TOKEN.findall(r)) == r for r in reactions), "no character is lost"
    ids = rxnmapper.tokenize(reactions[:100])
    assert not any(11 in row for row in ids), "no token is unknown"
    model = rxnmapper.load_model()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 512]
    assert len(layers) == 1, "one layer, shared"
    rows = embedded(model, ids)
    assert rows.shape == (100, 256)
    assert rows.isfinite().all()
    assert same_alone_and_in_a_padded_batch(model, ids[:5])
    kinds = [r[:2] for r in reactions[:100]]  # acid chloride, acid or bromide
    nearest = (rows @ rows.T - 2 * torch.eye(100)).argmax(1).tolist()
    assert sum(kinds[n] == kind for kind, n in zip(kinds, nearest, strict=True)) >= 95


# ------------------------------------------------------------------------------------------------- random transformers

FAMILIES = hf.families()


@torch.no_grad()
def last_states(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    out = model(**inputs)
    states: Tensor = out if isinstance(out, Tensor) else out.last_hidden_state
    return states


def test_every_family_has_both_attentions() -> None:
    kinds = ("bert", "distilbert", "vit", "gpt2", "llama")
    wanted = [f"{kind}-{attention}" for kind, attention in itertools.product(kinds, ("eager", "sdpa"))]
    assert list(FAMILIES) == [*wanted, "transformer-encoder"]


@pytest.mark.real("transformers")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_runs_at_two_shapes_and_on_both_sides(name: str) -> None:
    model = FAMILIES[name]()
    assert not model.training
    for (batch, tokens), side in itertools.product([(2, 7), (5, 19)], hf.SIDES):
        states = last_states(model, hf.example_inputs(name, batch, tokens, side))
        assert states.shape == (batch, 17 if name.startswith("vit") else tokens, hf.HIDDEN)
        assert states[0].isfinite().all()
    assert torch.equal(last_states(FAMILIES[name](), hf.example_inputs(name, 5, 19)), states), "the same weights"


@pytest.mark.real("transformers")
@pytest.mark.parametrize("kind", ["bert", "distilbert", "vit", "gpt2", "llama"])
def test_both_attentions_agree_on_live_tokens(kind: str) -> None:
    inputs = hf.example_inputs(kind, 4, 11, "left")
    eager, sdpa = (last_states(FAMILIES[f"{kind}-{attention}"](), inputs) for attention in ("eager", "sdpa"))
    live = inputs["attention_mask"].bool() if "attention_mask" in inputs else torch.ones(eager.shape[:2]).bool()
    assert torch.allclose(eager[live], sdpa[live], rtol=0, atol=1e-5)


def test_masks_are_ragged_and_on_the_side_asked_for() -> None:
    left, right = (hf.example_inputs("bert-sdpa", 6, 9, side)["attention_mask"] for side in hf.SIDES)
    assert torch.equal(right.flip(1), left)
    assert right[0].all()
    assert len(set(right.sum(1).tolist())) > 2
    assert bool((right.diff(dim=1) <= 0).all())
    assert torch.equal(hf.example_inputs(hf.ENCODER, 6, 9)["src_key_padding_mask"], right == 0)
