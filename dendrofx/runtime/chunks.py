"""Chunks of samples that attend together: plain functions that TorchScript compiles, for `attention.py`."""

from typing import Dict, List, Tuple

import torch


def cut_chunks(lengths: List[int], most: int) -> Tuple[List[int], List[int], List[int], List[int]]:
    """Share chunks among samples: the longest first, beside it the shortest while they fit.

    Samples that are all of one length stay alone: then nothing has to be moved or masked.

    Args:
        lengths: rows of each sample.
        most: rows of a chunk of several samples; a longer one stays alone.

    Returns:
        By sample, its chunk (-1 for one without rows) and the rows before it there; by chunk, its rows and its first sample.
    """
    chunk_of = [-1] * len(lengths)
    before = [0] * len(lengths)
    used: List[int] = []
    first: List[int] = []
    order: List[int] = torch.tensor(lengths, dtype=torch.int64).sort(stable=True, descending=True)[1].tolist()
    low, high = 0, len(order) - 1
    while high >= 0 and lengths[order[high]] == 0:
        high -= 1
    alike = high >= 0 and lengths[order[0]] == lengths[order[high]]
    while low <= high:
        sample = order[low]
        chunk_of[sample] = len(used)
        first.append(sample)
        rows = lengths[sample]
        low += 1
        while not alike and low <= high and rows + lengths[order[high]] <= most:
            chunk_of[order[high]] = len(used)
            before[order[high]] = rows
            rows += lengths[order[high]]
            high -= 1
        used.append(rows)
    return chunk_of, before, used, first


def group_chunks(used: List[int], most: int) -> Tuple[List[int], List[int], List[int], List[int]]:
    """Group chunks of alike size: those of up to `most` rows, and longer ones by classes of 16.

    Args:
        used: rows of each chunk.
        most: see `cut_chunks`.

    Returns:
        By chunk, where it starts among all chunks in the order of their groups, and its group; by group, its chunks and their size.
    """
    group_of: Dict[int, int] = {}
    groups: List[int] = []
    chunks: List[int] = []
    sizes: List[int] = []
    for rows in used:
        kind = 0 if rows <= most else (rows + 15) // 16  # so that few sizes occur
        if kind not in group_of:
            group_of[kind] = len(chunks)
            chunks.append(0)
            sizes.append(0)
        group = group_of[kind]
        groups.append(group)
        chunks[group] += 1
        sizes[group] = max(sizes[group], rows)
    start = 0
    nexts: List[int] = []
    for count, size in zip(chunks, sizes):
        nexts.append(start)
        start += count * size
    places: List[int] = []
    for group in groups:
        places.append(nexts[group])
        nexts[group] += sizes[group]
    return places, groups, chunks, sizes
