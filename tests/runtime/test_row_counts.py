"""The row counts that oneDNN's Linears run at."""

from itertools import pairwise

import pytest
import torch

from dendrofx.runtime.kernels import join_blocks, padded_rows, row_blocks


@pytest.mark.parametrize(("rows", "wanted"), [
    (0, 0), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 12), (16, 16), (17, 20), (32, 32), (33, 40), (65, 80),
    (240, 240),
    (241, 256), (256, 256), (257, 320), (320, 320), (321, 384), (449, 512), (512, 512), (513, 513), (515, 516),
    (521, 524), (1024, 1024), (1027, 1028), (1100, 1104), (1300, 1344),
])  # fmt: skip
def test_padded_rows(rows: int, wanted: int) -> None:
    assert padded_rows(rows) == wanted
    assert torch.jit.script(padded_rows)(rows) == wanted


def test_padding_is_monotone_bounded_and_of_few_sizes() -> None:
    padded = [padded_rows(n) for n in range(5001)]
    assert all(a <= b for a, b in pairwise(padded))
    for rows, ran in enumerate(padded):
        waste = ran - rows
        assert 0 <= waste < (16 if rows % 512 <= 256 else 64)
        assert ran < max(2 * rows, 1 + rows)
        assert padded_rows(ran) == ran
    assert sum(padded) < 1.02 * sum(range(5001))
    sizes = {len(block) for n in range(1, 1500) for block in row_blocks(torch.empty(n, 1), torch.float32)}
    assert len(sizes) <= 60
    assert max(sizes) == 512


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_hold_the_rows_and_then_zeros(dtype: torch.dtype) -> None:
    for rows in [*range(1, 21), *range(255, 261), *range(511, 516), 1100]:
        x = torch.randn(rows, 3)
        blocks = row_blocks(x, dtype)
        together = torch.cat(blocks)
        assert len(together) == padded_rows(rows)
        assert torch.equal(together[:rows], x.to(dtype))
        assert not bool(together[rows:].any())
        assert torch.equal(join_blocks(blocks, rows, 3), x.to(dtype).float())
