"""Dead rows of models in other types than float32: in the model's own, or refused."""

import pytest
import torch
from torch import Tensor, nn

from dendrofx.values.numerics import rounding
from tests.check import OTHER_GEMM
from tests.padded import ends, live

NEEDS_BERT = pytest.mark.real("transformers")


class Attends(nn.Module):
    """Attention spelled out; what hides padding is added."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 16)).transpose(1, 2) for f in (self.q, self.k, self.v))
        bias = (1 - attention_mask[:, None, None].to(x.dtype)) * torch.finfo(x.dtype).min
        weights = (q @ k.transpose(-1, -2) * 0.25 + bias).softmax(-1)
        return x + (weights @ v).transpose(1, 2).reshape(x.shape)


def bert(attention: str) -> nn.Module:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(**sizes, vocab_size=50, attn_implementation=attention)
    return transformers.BertModel(config, add_pooling_layer=False)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("plain", torch.float64),
        ("plain", torch.bfloat16),
        pytest.param("eager", torch.bfloat16, marks=NEEDS_BERT),
        pytest.param("sdpa", torch.float64, marks=NEEDS_BERT),
    ],
)
def test_models_of_other_types(kind: str, dtype: torch.dtype) -> None:
    model = (Attends() if kind == "plain" else bert(kind)).eval().requires_grad_(False).to(dtype)

    def given(lengths: list[int]) -> dict[str, Tensor]:
        alive, size = ends(lengths, 12), (len(lengths), 12)
        x = {"x": torch.randn(*size, 32).to(dtype)} if kind == "plain" else {"input_ids": torch.randint(1, 50, size)}
        return {**x, "attention_mask": alive.long()}

    made = live(model, given([12, 3, 10, 4]), "attention_mask")
    assert "1 of 1 attentions run on live rows" in made.plan.dead_rows.reason
    for lengths in ([12, 3, 10, 4], [1, 5, 0, 12], [7]):
        inputs = given(lengths)
        wanted, got = model(**inputs), made(**inputs)
        if kind != "plain":
            wanted, got = wanted.last_hidden_state, got.last_hidden_state
        alive = ends(lengths, 12) | (torch.tensor(lengths) == 0)[:, None]
        assert got.dtype == dtype
        far = (got[alive].double() - wanted[alive].double()).abs().max() / wanted.double().abs().max()
        assert float(far) <= rounding(dtype)


def test_a_sample_without_live_rows_is_nan_where_it_was() -> None:
    class Fills(Attends):
        def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
            q, k, v = (f(x).unflatten(-1, (2, 16)).transpose(1, 2) for f in (self.q, self.k, self.v))
            scores = (q @ k.transpose(-1, -2)).masked_fill(attention_mask[:, None, None] == 0, -torch.inf)
            return x + (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)

    model, alive = Fills().eval().requires_grad_(False), ends([12, 0, 5], 12)
    made = live(model, {"x": torch.randn(3, 12, 32), "attention_mask": ends([12, 4, 5], 12).float()}, "attention_mask")
    given = {"x": torch.randn(3, 12, 32), "attention_mask": alive.float()}
    wanted, got = model(**given), made(**given)
    assert wanted[1].isnan().all()
    assert got[1].isnan().all()
    torch.testing.assert_close(got[alive], wanted[alive], **OTHER_GEMM)
