"""RowAnalysis: verdicts of whole graphs, as they are printed."""

import pytest
import torch
from torch import Tensor, nn

from dendrofx.graph.capture import capture
from dendrofx.rows.analysis import RowAnalysis, RowNote
from dendrofx.values.inputs import Inputs
from tests.rows.models import Decoder, encoder, padded, two_sequences

GOLDEN = """\
value                     layout    verdict
embedding_weight          ..        constant
positions_weight          ..        constant
layers_0_norm1_weight     .         constant
layers_0_norm1_bias       .         constant
layers_0_norm2_weight     .         constant
layers_0_norm2_bias       .         constant
input_ids                 bt        input
attention_mask            bt        input
embedding                 bt.       row-wise
arange                    t         no rows
embedding_1               t.        no rows
add                       bt.       row-wise
eq                        bt        row-wise
where                     bt        row-wise
unsqueeze                 b.t       row-wise
unsqueeze_1               b..t      row-wise
layers_0_attention_query  bt.       row-wise
view                      bt..      row-wise
transpose                 b.t.      row-wise
layers_0_attention_key    bt.       row-wise
view_1                    bt..      row-wise
transpose_1               b.t.      row-wise
layers_0_attention_value  bt.       row-wise
view_2                    bt..      row-wise
transpose_2               b.t.      row-wise
transpose_3               b..t      row-wise
matmul                    b.tt      mixes rows: its output has no rows
div                       b.tt      no rows
add_1                     b.tt      mixes rows: its output has no rows
softmax                   b.tt      no rows
matmul_1                  b.t.      mixes rows: the axes of its inputs cannot be told apart: b.tt, b.t.
transpose_4               bt..      row-wise
reshape                   bt.       row-wise
layers_0_attention_out    bt.       row-wise
add_2                     bt.       row-wise
layer_norm                bt.       row-wise
layers_0_fc1              bt.       row-wise
gelu                      bt.       row-wise
layers_0_fc2              bt.       row-wise
add_3                     bt.       row-wise
layer_norm_1              bt.       row-wise"""


def analysed(model: nn.Module, example: dict[str, Tensor], mask: str | None = None) -> RowAnalysis:
    return RowAnalysis(capture(model.eval().requires_grad_(False), Inputs.of(example), shapes=True), mask)


def row_wise(analysis: RowAnalysis) -> list[str]:
    return [n.name for n in analysis.notes if analysis.row_wise(n)]


def reasons(analysis: RowAnalysis) -> list[str]:
    return [note.reason for note in analysis.notes.values() if note.reason]


def test_an_encoder_as_it_is_printed() -> None:
    example = padded([6, 3, 5], 6)
    analysis = analysed(encoder("eager"), example)
    assert str(analysis) == GOLDEN
    analysis.check(Inputs.of(example))
    analysis.check(Inputs.of(padded([1, 1], 1)))


def test_attention_as_one_op_is_all_that_mixes_rows() -> None:
    assert reasons(analysed(encoder(layers=2), padded([6, 3], 6))) == ["no rule for scaled_dot_product_attention"] * 2


@pytest.mark.parametrize(
    ("note", "text"),
    [
        (RowNote("bt.", True), "row-wise"),
        (RowNote("bt.", False, "it works along axis 't'"), "mixes rows: it works along axis 't'"),
        (RowNote("..", False), ""),
    ],
)
def test_a_verdict_in_words(note: RowNote, text: str) -> None:
    assert str(note) == text


class Patches(nn.Module):
    """A vision model's beginning: tokens are patches, of a fixed number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv(image).flatten(2).transpose(1, 2)
        return torch.relu(self.fc(torch.cat([self.token.expand(x.size(0), -1, -1), x], 1)))


def test_a_fixed_number_of_tokens_makes_no_rows() -> None:
    analysis = analysed(Patches(), {"image": torch.randn(3, 3, 8, 8)})
    assert row_wise(analysis) == []
    assert reasons(analysis) == []
    assert [line.split()[2:] for line in str(analysis).splitlines() if line.startswith("fc")] == [["no", "rows"]]
    analysis.check(Inputs.of(torch.randn(2, 3, 8, 8)))


@pytest.mark.parametrize(
    ("mask", "layouts", "expected"),
    [
        (None, ("bt.", "b?."), ["query"]),
        ("source_mask", ("b?.", "bt."), ["key", "unsqueeze", "eq"]),
    ],
    ids=["target", "source"],
)
def test_rows_of_one_sequence(mask: str | None, layouts: tuple[str, str], expected: list[str]) -> None:
    """Both have five tokens here, and yet only one has rows: the mask of the one says nothing of the other."""
    example = two_sequences()
    analysis = analysed(Decoder(), example, mask)
    nodes = {n.name: n for n in analysis.notes}
    assert (analysis.layout(nodes["target"]), analysis.layout(nodes["source"])) == layouts
    assert [name for name in row_wise(analysis) if name in ("query", "key", "unsqueeze", "eq")] == expected
    analysis.check(Inputs.of(example))


class Gated(nn.Module):
    """Values that no letter can be told of, and picks from what is not row-wise."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.fc(x.reshape(-1, 8))
        return flat.view(x.size(0), x.size(1), 8) * x.sort(1).values + x


def test_what_cannot_be_told() -> None:
    analysis = analysed(Gated(), {"x": torch.randn(3, 5, 8)})
    notes = {n.name: str(note) for n, note in analysis.notes.items()}
    assert notes["reshape"] == "mixes rows: its output has no rows"
    assert notes["fc"] == ""
    assert notes["view"] == "mixes rows: the axes of its inputs cannot be told apart: ?."
    assert notes["sort"] == "mixes rows: it works along axis 't'"
    assert notes["getitem"] == "mixes rows: what it picks from is not row-wise"
    assert notes["mul"] == notes["add"] == "row-wise"
