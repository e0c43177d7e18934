"""The graph before and after, drawn: columns of blocks, and of a routed one its gate and its two branches."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dendrofx.report.blocks import Block, Fold
from dendrofx.report.svg import clipped, element, line, picture, text

WIDTH = 470
X, INNER = 8, 390  # where blocks begin, and how wide they are
GAP, PAD = 14, 10
MOST = 40  # blocks of a column
NAME = 52  # characters of a site's name


def longest(*columns: Sequence[Fold]) -> float:
    """Return the milliseconds of the slowest block: what bars are drawn against."""
    return max([b.ms for folds in columns for f in folds for b in f.blocks], default=0.0) or 1.0


def column(folds: Sequence[Fold], title: str, slowest: float) -> str:
    """Draw a graph from top to bottom; the bar of a block that takes `slowest` milliseconds is a full one."""
    total = sum(b.ms * f.times for f in folds for b in f.blocks) or 1.0
    drawn: list[str] = []
    y, left_out, shown = 30.0, 0, 0
    for fold in folds:
        if shown >= MOST:
            left_out += len(fold.blocks) * fold.times
            continue
        start = y
        for block in fold.blocks:
            made, height = _block(block, y, slowest)
            drawn += [made, _arrow(y + height)]
            y += height + GAP
            shown += 1
        if fold.times > 1:
            drawn.append(_bracket(start, y - GAP, fold.times))
    if left_out:
        drawn.append(text(X, y + 12, f"and {left_out} blocks more", "note"))
        y += 24
    drawn = drawn[:-1] if drawn and "arrow" in drawn[-1] else drawn
    head = text(X, 16, f"{title}: {total:.3g} ms, node by node", "title")
    return picture(WIDTH, round(y + 6), title, head, *drawn)


def _arrow(y: float) -> str:
    return line(X + INNER / 2, y, X + INNER / 2, y + GAP, "arrow")


def _bracket(top: float, bottom: float, times: int) -> str:
    x = X + INNER + 8
    shape = element("path", d=f"M{x} {top:.1f} h8 V{bottom:.1f} h-8", class_="bracket")
    return shape + text(x + 14, (top + bottom) / 2 + 5, f"x {times}", "label strong")


def _block(block: Block, y: float, slowest: float) -> tuple[str, float]:
    """Draw a block, and return its height."""
    if block.routed:
        return _routed(block, y, slowest)
    height = 40.0 if block.site else 28.0
    title = f"{block.site}, {block.label}" if block.site else block.label
    inside = [_box(X, y, INNER, height, "site" if block.site else "between", title)]
    if block.site:
        inside += [text(X + PAD, y + 17, clipped(block.site, NAME), "label strong")]
        inside += [text(X + PAD, y + 32, clipped(block.label, 42), "note")]
    else:
        inside.append(text(X + PAD, y + 18, clipped(block.label, 42), "note"))
    inside += _time(X + INNER, y + (31 if block.site else 17), block.ms, slowest)
    return element("g", *inside), height


def _routed(block: Block, y: float, slowest: float) -> tuple[str, float]:
    """Draw the gate over its two branches: how deep their colour is goes with their rows, the bar with their time."""
    height, half = 118.0, (INNER - 3 * PAD) / 2
    inside = [_box(X, y, INNER, height, "routed", f"{block.site}: rows are split")]
    inside += [text(X + PAD, y + 18, clipped(block.site, NAME), "label strong")]
    inside += [
        text(
            X + PAD, y + 34, f"gate {_ms(block.parts.get('gate', 0.0))}" if "full" in block.parts else "no gate", "note"
        )
    ]
    inside += _time(X + INNER, y + 33, block.ms, slowest)
    shares = {name: s for name, s in (("light", 1 - block.hard), ("full", block.hard)) if name in block.parts}
    for number, (name, share) in enumerate(shares.items()):
        inside.append(
            _branch(name, share, block.parts.get(name, 0.0), slowest, (X + PAD + number * (half + PAD), y + 44, half))
        )
    return element("g", *inside), height


def _branch(name: str, share: float, ms: float, slowest: float, place: tuple[float, float, float]) -> str:
    x, y, width = place
    shade = element(
        "rect", x=x, y=y, width=width, height=62, rx=5, class_=f"shade {name}", fill_opacity=0.05 + 0.4 * share
    )
    frame = element("rect", x=x, y=y, width=width, height=62, rx=5, class_=f"branch {name}")
    inside = [
        shade,
        frame,
        text(x + 8, y + 18, name, "label strong"),
        text(x + width - 8, y + 18, _ms(ms), "note", "end"),
    ]
    inside.append(text(x + 8, y + 36, f"{100 * share:.3g} % of rows", "note"))
    part = min(ms / slowest, 1.0)
    inside.append(element("rect", x=x + 8, y=y + 46, width=width - 16, height=6, class_="rail"))
    inside.append(element("rect", x=x + 8, y=y + 46, width=(width - 16) * part, height=6, class_=f"bar {name}"))
    return element("g", element("title", f"{name}: {share:.2%} of the rows, {_ms(ms)}"), *inside)


def _box(x: float, y: float, width: float, height: float, class_: str, title: str) -> str:
    label = element("title", escape(title))
    return element("rect", label, x=float(x), y=y, width=float(width), height=height, rx=6, class_=f"box {class_}")


def _time(right: float, y: float, ms: float, slowest: float) -> list[str]:
    """Write a block's time at its right, over its bar."""
    bar = 60 * min(ms / slowest, 1.0)
    rail = element("rect", x=right - PAD - 60, y=y + 4, width=60, height=4, class_="rail")
    return [
        text(right - PAD, y - 1, _ms(ms), "note", "end"),
        rail,
        element("rect", x=right - PAD - 60, y=y + 4, width=bar, height=4, class_="bar"),
    ]


def _ms(value: float) -> str:
    return f"{value:.2g} ms" if value < 10 else f"{value:.0f} ms"
