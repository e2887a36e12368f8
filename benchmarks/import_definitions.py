"""What listing three environments costs a code location on top of `import dagster`."""

from __future__ import annotations

import statistics
import subprocess
import sys

RUNS = 5
BASELINE = "import dagster"
OURS = """
import dagster
import heap_integration.definitions as definitions
for name in ("sandbox", "staging", "production"):
    getattr(definitions, name).get_repository_def()
"""
MEASURE = """
import resource, time
started = time.process_time()
{code}
print(time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def measure(code: str) -> tuple[float, float]:
    """Return CPU seconds and peak megabytes of a new process that runs ``code``."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURE.format(code=code)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(printed[-2]), float(printed[-1])


def main() -> None:
    """Run both in turn, after one warm-up, and print the medians."""
    measure(OURS)
    pairs = [(measure(BASELINE), measure(OURS)) for _ in range(RUNS)]
    rows = {"import dagster": [base for base, _ in pairs], "with three environments": [ours for _, ours in pairs]}
    print(f"{'':26}{'CPU s':>8}{'peak MB':>10}   (medians of {RUNS} new processes)")
    for name, measured in rows.items():
        seconds, megabytes = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:26}{seconds:8.2f}{megabytes:10.0f}")
    extra = statistics.median(ours[0] - base[0] for base, ours in pairs)
    print(f"{'difference':26}{extra:8.2f}   (target: at most 1.5)")


if __name__ == "__main__":
    main()
