"""What a materialization shows: the counts under their fixed names, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import dagster as dg


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


def _cell(text: str) -> str:
    return escape(text).replace("|", "&#124;").replace("\n", " ")
