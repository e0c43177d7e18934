"""Batch independence: what is proved, what is refused by name, and the experiment."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from dendrofx import InputError
from dendrofx.graph.capture import capture
from dendrofx.rows.samples import SampleAnalysis, check_samples
from dendrofx.values.inputs import Inputs


def analysis(model: Any, *args: Any) -> Any:
    names = list(model.forward.__code__.co_varnames[1 : 1 + len(args)])
    inputs = Inputs((), tuple(zip(names, args, strict=True)))
    return SampleAnalysis(capture(model.eval(), inputs, shapes=True)), inputs


class Tokens(nn.Module):
    """A body for ids [batch, tokens], and what is done to its values."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.table, self.linear, self.body = nn.Embedding(50, 8), nn.Linear(8, 8), body

    def forward(self, ids: Any) -> Any:
        return self.body(self.linear(self.table(ids)))


def attention(x: Any) -> Any:
    q = x.unflatten(2, (2, 4)).transpose(1, 2)
    return nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)


INDEPENDENT = {
    "a pooled mean over tokens": lambda x: x.mean(1),
    "attention over tokens": attention,
    "a product of a sample's tokens": lambda x: (x @ x.transpose(1, 2)).sum(2),
    "a flattened sample": lambda x: x[:, :4].flatten(1),
    "the first token": lambda x: x[:, 0],
    "softmax over tokens": lambda x: x.softmax(1).sum(1),
    "tokens in reverse": lambda x: x.flip(1),
    "norms and norms of norms": lambda x: x / x.norm(dim=(1, 2), keepdim=True),
    "features of a convolution": lambda x: nn.functional.conv1d(x.transpose(1, 2), torch.ones(3, 8, 1)).amax(2),
    "its own place": lambda x: x[torch.arange(x.size(0))[:, None], torch.arange(x.size(1))],
    "several outputs": lambda x: {"pooled": x.mean(1), "tokens": x},
}
DEPENDENT = {
    "the mean of the batch": lambda x: x - x.mean(0),
    "softmax over the batch": lambda x: x.mean(1).softmax(0),
    "a product of samples": lambda x: x.mean(1) @ x.mean(1).t(),
    "the batch reversed": lambda x: x.flip(0),
    "a running sum over samples": lambda x: x.mean(1).cumsum(0),
    "samples joined in one": lambda x: x.reshape(1, -1, 8).sum(1).expand(4, 8),
    "a sample's place in the batch": lambda x: x + torch.arange(x.size(0))[:, None, None],
    "another's place": lambda x: x[torch.arange(x.size(0)) - 1],
    "an order of the batch": lambda x: x[x.mean((1, 2)).argsort()],
    "the largest of all": lambda x: x / x.max(),
    "batch statistics": lambda x: nn.functional.batch_norm(x.mean(1), None, None, training=True),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_what_each_sample_does_on_its_own_is_proved(name: Any) -> None:
    found, inputs = analysis(Tokens(INDEPENDENT[name]), torch.arange(20).reshape(4, 5))
    assert found.refusals == []
    assert found.batched == ("ids",)
    check_samples(found.gm, replace(inputs, shared=found.shared))


@pytest.mark.parametrize("name", DEPENDENT)
def test_what_crosses_the_batch_is_refused_with_its_node(name: Any) -> None:
    found, _ = analysis(Tokens(DEPENDENT[name]), torch.arange(20).reshape(4, 5))
    assert found.refusals
    assert found.refusals[0].startswith(("%", "output %"))


def test_the_experiment_finds_what_a_wrong_proof_lets_through() -> None:
    found, inputs = analysis(Tokens(lambda x: x - x.mean(0)), torch.arange(20).reshape(4, 5))
    with pytest.raises(InputError, match="depends on the other samples of its batch"):
        check_samples(found.gm, inputs)


class Shared(nn.Module):
    """One input that all samples share."""

    def forward(self, x: Any, scale: Any) -> Any:
        return x * scale


def test_inputs_without_samples_are_passed_on_whole() -> None:
    found, inputs = analysis(Shared(), torch.randn(4, 3), torch.randn(3))
    assert found.refusals == []
    assert found.batched == ("x",)
    assert found.shared == {"scale"}
    taken = replace(inputs, shared=found.shared).take(torch.tensor([2, 0]))
    assert dict(taken.kwargs)["scale"].shape == (3,)
    assert torch.equal(dict(taken.kwargs)["x"], inputs.kwargs[0][1][[2, 0]])
