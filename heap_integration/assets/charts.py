"""Small charts for the pages of assets: pictures inside markdown, readable at a glance."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

import dagster as dg

WIDTH, HEIGHT, GAP = 560, 120, 2
LINE, LABEL = 24, 190
INK, MAIN = "#6b7280", "#4f43dd"
# The first of them bear the most; grey is for what is neither good nor bad.
COLOURS = ("#4f43dd", "#0ea5a4", "#f59e0b", "#ef4444", "#9ca3af", "#8b5cf6", "#10b981", "#ec4899")
SPARKS = "▁▂▃▄▅▆▇█"
STRONG_TEXT, WEAK_TEXT = "#ffffff", "#1f2937"


def bars(title: str, series: Sequence[tuple[str, float]]) -> dg.MetadataValue:
    """Return upright bars for a few labelled numbers, such as one a day."""
    highest = max((value for _, value in series), default=0) or 1
    step = WIDTH / max(len(series), 1)
    shapes = "".join(
        _box(
            index * step,
            HEIGHT - HEIGHT * value / highest,
            max(step - GAP, 1),
            HEIGHT * value / highest,
            MAIN,
            f"{label}: {_number(value)}",
        )
        for index, (label, value) in enumerate(series)
    )
    heading = f"{title}, highest {_number(max((value for _, value in series), default=0))}"
    return _picture(title, HEIGHT, _text(0, -10, heading) + shapes + _ends([label for label, _ in series], HEIGHT))


def shares(title: str, parts: Sequence[tuple[str, float]], of: float | None = None) -> dg.MetadataValue:
    """Return lying bars, each with its label, its number and its share: of all bars, unless another whole is given."""
    total = (sum(value for _, value in parts) if of is None else of) or 1
    return _lying(title, [(label, value, f"{_number(value)} · {value / total:.1%}") for label, value in parts])


def funnel(title: str, steps: Sequence[tuple[str, float]]) -> dg.MetadataValue:
    """Return lying bars for the steps of a conversion: how many came so far, of all and of the step before."""
    first = steps[0][1] if steps else 0
    rows: list[tuple[str, float, str]] = []
    before = first
    for label, value in steps:
        rates = f"{value / first if first else 0:.1%} of all, {value / before if before else 0:.1%} of the step before"
        rows.append((label, value, f"{_number(value)} · {rates}" if rows else _number(value)))
        before = value
    return _lying(title, rows)


def stacked(title: str, days: Sequence[str], series: Mapping[str, Sequence[float]]) -> dg.MetadataValue:
    """Return one upright bar a day, made of one part for each series; the legend names them."""
    totals = [sum(values) for values in zip(*series.values(), strict=True)]
    highest, step = max(totals, default=0) or 1, WIDTH / max(len(days), 1)
    shapes, floors = "", [float(HEIGHT)] * len(days)
    for (name, values), colour in zip(series.items(), _colours(len(series)), strict=True):
        for index, value in enumerate(values):
            height = HEIGHT * value / highest
            floors[index] -= height
            told = f"{days[index]} {name}: {_number(value)}"
            shapes += _box(index * step, floors[index], max(step - GAP, 0.5), height, colour, told)
    heading = _text(0, -10, f"{title}, highest {_number(max(totals, default=0))}")
    return _picture(title, HEIGHT + LINE, heading + shapes + _ends(days, HEIGHT) + _legend(list(series)))


def grid(title: str, rows: Sequence[tuple[str, Sequence[float | None]]], columns: Sequence[str]) -> dg.MetadataValue:
    """Return shares (0 to 1) as a field of shaded cells, a row for each label; ``None`` leaves a cell empty."""
    step = (WIDTH - LABEL / 2) / max(len(columns), 1)
    left = LABEL / 2
    shapes = "".join(_text(left + index * step + 2, 10, column) for index, column in enumerate(columns))
    for number, (label, values) in enumerate(rows):
        top = 16 + number * LINE
        shapes += _text(0, top + 15, label)
        for index, value in enumerate(values):
            if value is not None:
                shapes += _cell(left + index * step, top, step, value, f"{label} {columns[index]}: {value:.1%}")
    return _picture(title, 16 + len(rows) * LINE, _text(0, -10, title) + shapes)


def spark(values: Sequence[float]) -> str:
    """Return a line of text whose characters are bars: what a list shows without opening the picture."""
    highest = max(values, default=0) or 1
    return "".join(SPARKS[min(int(value / highest * len(SPARKS)), len(SPARKS) - 1)] for value in values)


def in_words(parts: Sequence[tuple[str, float]], of: float | None = None) -> str:
    """Return labels with their numbers and shares in one line; of all of them, unless another whole is given."""
    total = (sum(value for _, value in parts) if of is None else of) or 1
    return " · ".join(f"{label} {_number(value)} ({value / total:.0%})" for label, value in parts)


def _cell(x: float, y: float, width: float, value: float, told: str) -> str:
    ink = STRONG_TEXT if value > 0.5 else WEAK_TEXT
    box = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - GAP:.1f}" height="{LINE - GAP}" fill="{MAIN}" '
        f'fill-opacity="{0.06 + 0.94 * min(value, 1):.2f}"><title>{escape(told)}</title></rect>'
    )
    return box + f'<text x="{x + 4:.1f}" y="{y + 15:.1f}" fill="{ink}">{value:.0%}</text>'


def _lying(title: str, rows: Sequence[tuple[str, float, str]]) -> dg.MetadataValue:
    highest = max((value for _, value, _ in rows), default=0) or 1
    room = WIDTH - LABEL
    shapes = _text(0, -10, title)
    for number, (label, value, told) in enumerate(rows):
        top = number * LINE
        width = room * value / highest
        shapes += _text(0, top + 15, _short(label)) + _box(LABEL, top, max(width, 1), LINE - 2 * GAP, MAIN, told)
        # Beside the bar while there is room for it, else on it.
        fits = width < room / 2
        x, anchor, ink = (LABEL + width + 6, "start", INK) if fits else (LABEL + width - 6, "end", STRONG_TEXT)
        shapes += f'<text x="{x:.1f}" y="{top + 15}" text-anchor="{anchor}" fill="{ink}">{escape(told)}</text>'
    return _picture(title, max(len(rows), 1) * LINE, shapes)


def _legend(names: Sequence[str]) -> str:
    step = WIDTH / max(len(names), 1)
    top = HEIGHT + LINE + 4
    return "".join(
        _box(index * step, top, 10, 10, colour, name) + _text(index * step + 14, top + 9, name)
        for index, (name, colour) in enumerate(zip(names, _colours(len(names)), strict=True))
    )


def _colours(number: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(number)]


def _ends(labels: Sequence[str], below: float) -> str:
    first, last = (labels[0], labels[-1]) if labels else ("", "")
    return _text(0, below + 15, first) + _text(WIDTH, below + 15, last, anchor="end")


def _box(x: float, y: float, width: float, height: float, colour: str, told: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="{colour}">'
        f"<title>{escape(told)}</title></rect>"
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def _short(label: str) -> str:
    return label if len(label) <= 28 else f"{label[:27]}…"


def _picture(title: str, height: float, shapes: str) -> dg.MetadataValue:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height + 44}" '
        f'viewBox="0 -26 {WIDTH} {height + 44}" font-family="sans-serif" font-size="12" fill="{INK}">{shapes}</svg>'
    )
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})")
