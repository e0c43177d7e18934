"""The parts of `runtime/` once more, without branches: what `torch.export` traces, for the formats beside TorchScript.

    runtime/      decides in every call: no row is hard, all are, few are dead, none repeats
    branchless/   finds rows by their indices and computes them; of none of them nothing costs nothing

    hard = (~(score < tolerance)).nonzero()
    y    = light(x).index_copy(0, hard, full(x.index_select(0, hard)))

The functions and classes have the names of those whose place they take, and compute the same rows: `twins.py` pairs them.
"""
