"""Days put together into the ranges that one run takes."""

from __future__ import annotations

from datetime import date


def day_ranges(days: set[date], most: int | str) -> list[tuple[date, date]]:
    """Cut days into runs of neighbouring days, each at most ``most`` long (or "all")."""
    longest = len(days) if most == "all" else int(most)
    ranges: list[tuple[date, date]] = []
    for day in sorted(days):
        if ranges and (day - ranges[-1][1]).days == 1 and (day - ranges[-1][0]).days < longest:
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges
