"""What a materialization shows: the counts under their fixed names, and a small plot."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

import dagster as dg

WIDTH, HEIGHT, GAP = 560, 120, 2


def counts(**values: int) -> dict[str, dg.MetadataValue]:
    """Return counts as metadata; ``row_count`` becomes Dagster's own."""
    return {
        "dagster/row_count" if name == "row_count" else name: dg.MetadataValue.int(value)
        for name, value in values.items()
    }


def reasons_table(reasons: Mapping[str, int]) -> dg.MetadataValue:
    """Return why rows were not sent, most frequent first."""
    rows = sorted(reasons.items(), key=lambda item: -item[1])[:20]
    return table(("rows", "reason"), [(f"{count:,}", reason) for reason, count in rows])


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> dg.MetadataValue:
    """Return rows of text as a table; whatever they hold is shown as it is."""
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in (headings, *rows)]
    return dg.MetadataValue.md("\n".join([lines[0], "|---" * len(headings) + "|", *lines[1:]]))


def bars(title: str, series: Sequence[tuple[str, int]]) -> dg.MetadataValue:
    """Return a bar chart of a few labelled numbers as a picture inside markdown."""
    highest = max((value for _, value in series), default=0) or 1
    step = WIDTH / max(len(series), 1)
    shapes = "".join(
        f'<rect x="{index * step:.1f}" y="{HEIGHT - HEIGHT * value / highest:.1f}" '
        f'width="{max(step - GAP, 1):.1f}" height="{HEIGHT * value / highest:.1f}" rx="2" fill="#4f43dd">'
        f"<title>{escape(label)}: {value:,}</title></rect>"
        for index, (label, value) in enumerate(series)
    )
    first, last = (escape(series[0][0]), escape(series[-1][0])) if series else ("", "")
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT + 44}" '
        f'viewBox="0 -26 {WIDTH} {HEIGHT + 44}" font-family="sans-serif" font-size="12" fill="#6b7280">'
        f'<text x="0" y="-10">{escape(title)}, highest {highest:,}</text>{shapes}'
        f'<text x="0" y="{HEIGHT + 15}">{first}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 15}" text-anchor="end">{last}</text></svg>'
    )
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})")


def _cell(text: str) -> str:
    return escape(text).replace("|", "&#124;").replace("\n", " ")
