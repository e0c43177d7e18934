"""The two charts: speed-up against deviation, measured, and deviation against rows in full, replayed."""

from __future__ import annotations

from collections.abc import Sequence

from dendrofx.compare.points import CHOSEN, Point, Sweep
from dendrofx.report.collect import Collected
from dendrofx.report.replay import Replay
from dendrofx.report.svg import Frame, element, line, linear, path, picture, root, steps, text

WIDTH, HEIGHT = 760, 380
LEFT, TOP, RIGHT, BOTTOM = 64, 44, 736, 322
SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


def percent(share: float) -> str:
    """Return a share as `0.77 %`."""
    return f"{100 * share:.3g} %"


def trade_off(found: Collected, measured: Sweep) -> str:
    """Draw how many times as fast each point of the sweep is, against its mean deviation."""
    points, limit = measured.points, found.plan.max_deviation
    farthest = max([p.quality.mean for p in points] + ([] if found.plan.budget else [limit])) * 1.06
    xs, ys = steps(farthest), steps(max(p.speedup for p in points) * 1.05)
    frame = Frame(LEFT, TOP, RIGHT, BOTTOM, root(xs[-1], LEFT, RIGHT), linear(0, ys[-1], BOTTOM, TOP))
    ticks = [(v, percent(v)) for v in xs]
    inside = frame.axes(ticks, [(v, f"{v:g} x") for v in ys], "mean deviation from the original", "times as fast")
    inside += _original(frame, measured)
    if not found.plan.budget and 0 < limit <= xs[-1]:
        inside += [line(frame.x(limit), TOP, frame.x(limit), BOTTOM, "limit")]
        inside += [text(frame.x(limit) - 6, BOTTOM - 8, f"budget {percent(limit)}", "note", "end")]
    places = [(frame.x(p.quality.mean), frame.y(p.speedup)) for p in points]
    inside.append(path(places, "curve"))
    inside += [_point(point, place) for point, place in zip(points, places, strict=True)]
    inside += _labels(points, places)
    noisy = " — noisy: take the times with care" if measured.noisy or measured.unreliable else ""
    title = f"Speed-up against mean deviation at {len(points)} settings, batch {found.batch}{noisy}"
    return picture(WIDTH, HEIGHT, title, text(LEFT - 44, 16, title, "title"), *inside)


def _original(frame: Frame, measured: Sweep) -> list[str]:
    """Draw the original at 1, with a band as wide as it differed from itself."""
    off = abs(measured.again - 1)
    top, bottom = frame.y(1 + off), frame.y(max(1 - off, 0.0))
    band = element("rect", x=LEFT, y=top, width=RIGHT - LEFT, height=max(bottom - top, 1.0), class_="band")
    words = f"grey: the original against itself (A/A {measured.again:.2f})"
    note = text(RIGHT, BOTTOM + 40, words, "note", "end")
    return [band, line(LEFT, frame.y(1), RIGHT, frame.y(1), "base"), note]


def _point(point: Point, place: tuple[float, float]) -> str:
    chosen = point.name == CHOSEN
    words = f"{point.name}: {point.speedup:.2f} x, mean deviation {percent(point.quality.mean)}"
    title = element("title", words)
    x, y = place
    return element("circle", title, cx=x, cy=y, r=8 if chosen else 4.5, class_="chosen" if chosen else "dot")


def _labels(points: Sequence[Point], places: Sequence[tuple[float, float]]) -> list[str]:
    """Name the chosen point and the two ends, where names do not cover one another."""
    named = [i for i, p in enumerate(points) if p.name == CHOSEN]
    named += [i for i in (0, len(points) - 1) if i not in named]
    found: list[str] = []
    taken: list[float] = []
    for i in named:
        x, y = places[i]
        left = x > (LEFT + RIGHT) / 2
        y += -10 if left else 16  # the curve rises to the right: above it there, below it here
        while any(abs(y - other) < 17 for other in taken):
            y += 17
        taken.append(y)
        words = f"{points[i].name}: {points[i].speedup:.2f} x"
        class_ = "label strong" if points[i].name == CHOSEN else "label"
        found.append(text(x - 14 if left else x + 14, y + 4, words, class_, "end" if left else "start"))
    return found


def replayed(replay: Replay, measured: Sweep | None, positions: Sequence[float]) -> str:
    """Draw mean and 99th percentile of the replayed deviation against rows in full, and the points that were run again."""
    at = [replay.at(f) for f in positions]
    points = [p for p in measured.points if p.factor is not None] if measured is not None else []
    high = max([f.p99 for f in at] + [p.quality.p99 for p in points]) * 1.03
    ys = steps(high)
    frame = Frame(LEFT, TOP, RIGHT, BOTTOM, root(1.0, RIGHT, LEFT), linear(0, ys[-1], BOTTOM, TOP))
    ticks = [(v, f"{100 * v:g} %") for v in SHARES]
    inside = frame.axes(ticks, [(v, percent(v)) for v in ys], "activity: share of the sites' work in full", "deviation")
    inside.append(path([(frame.x(f.activity), frame.y(f.p99)) for f in at], "curve p99"))
    inside.append(path([(frame.x(f.activity), frame.y(f.mean)) for f in at], "curve mean"))
    for point in points:
        for name, value in (("mean", point.quality.mean), ("p99", point.quality.p99)):
            label = element("title", f"run again, {point.name}: {name} {percent(value)}")
            inside.append(
                element(
                    "circle",
                    label,
                    cx=frame.x(point.quality.activity or 0.0),
                    cy=frame.y(value),
                    r=4.5,
                    class_=f"dot {name}",
                )
            )
    inside += [text(RIGHT - 10, BOTTOM - 46, "99th percentile", "label p99", "end")]
    inside += [text(RIGHT - 10, BOTTOM - 28, "mean", "label mean", "end")]
    inside += [text(RIGHT - 10, BOTTOM - 10, "dots: run again", "note", "end")]
    inside.append(line(LEFT, TOP, LEFT, BOTTOM, "marker").replace("<line", '<line id="marker"', 1))
    inside += [_mark("mark-mean", "mean"), _mark("mark-p99", "p99")]
    title = "Deviation against activity, replayed from recorded scores"
    scale = element("metadata", id_="scale", data_box=f"{LEFT} {TOP} {RIGHT} {BOTTOM}", data_high=f"{ys[-1]!r}")
    return picture(WIDTH, HEIGHT, title, text(LEFT - 44, 16, title, "title"), scale, *inside)


def _mark(name: str, class_: str) -> str:
    return element("circle", cx=LEFT, cy=BOTTOM, r=6, id_=name, class_=f"mark {class_}")
