"""Plain SVG: escaped elements, scales and axes. Colours are the page's, by class, so that a theme changes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

Scale = Callable[[float], float]


def element(name: str, *inside: str, **attributes: object) -> str:
    """Return an element; `class_` is the attribute class, and `_` in names stands for `-`. What is inside is not escaped."""
    named = ((k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items() if v is not None)
    given = "".join(f' {k}="{escape(_shown(v))}"' for k, v in named)
    return f"<{name}{given}>{''.join(inside)}</{name}>"


def _shown(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> str:
    """Return a line of text."""
    return element("text", escape(content), x=float(x), y=float(y), class_=class_ or None, text_anchor=anchor)


def clipped(content: str, most: int) -> str:
    """Return a text of at most so many characters; what was left out shows as dots in its middle."""
    if len(content) <= most:
        return content
    head = (most - 1) * 2 // 3
    return f"{content[:head]}…{content[-(most - 1 - head) :]}"


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """Return a line."""
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str) -> str:
    """Return a line through points."""
    steps = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    return element("path", d=steps, class_=class_)


def picture(width: int, height: int, title: str, *inside: str, id_: str | None = None) -> str:
    """Return a whole picture, with a title for those who do not see it."""
    label = element("title", escape(title))
    return element("svg", label, *inside, viewBox=f"0 0 {width} {height}", role="img", aria_label=title, id_=id_)


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Return a scale from values to places."""
    span = (high - low) or 1.0
    return lambda v: start + (end - start) * (v - low) / span


def root(high: float, start: float, end: float) -> Scale:
    """Return a scale from 0 on, in which small values have more room: places go with the root."""
    return lambda v: start + (end - start) * math.sqrt(max(v, 0.0) / (high or 1.0))


def steps(high: float, about: int = 5) -> list[float]:
    """Return round values from 0 to at least `high`."""
    raw = max(high, 1e-9) / about
    size = 10 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999)
    return [i * step for i in range(math.ceil(high / step * 0.999) + 1)]


@dataclass(frozen=True)
class Frame:
    """The box of a chart with its two scales."""

    left: float
    top: float
    right: float
    bottom: float
    x: Scale
    y: Scale

    def axes(
        self, xs: Sequence[tuple[float, str]], ys: Sequence[tuple[float, str]], x_title: str, y_title: str
    ) -> list[str]:
        """Return grid lines with their figures, and the names of the axes."""
        found = []
        for value, label in ys:
            found += [line(self.left, self.y(value), self.right, self.y(value), "grid")]
            found += [text(self.left - 8, self.y(value) + 4, label, "tick", "end")]
        for value, label in xs:
            found += [line(self.x(value), self.top, self.x(value), self.bottom, "grid")]
            found += [text(self.x(value), self.bottom + 18, label, "tick", "middle")]
        found.append(text(self.left, self.bottom + 40, x_title, "axis"))
        return [*found, text(self.left - 44, self.top - 14, y_title, "axis")]
