"""What listing three environments costs over `import dagster`, in CPU time of fresh processes.

python benchmarks/import_definitions.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("development", "staging", "production")
ENVIRONMENT = """\
heap:
  app_id: "{app_id}"
  segment_sync: {{webhook_secret: {{env: HEAP_SEGMENT_SYNC_SECRET}}}}
sources:
  userflow: {{signing_secret: {{env: USERFLOW_WEBHOOK_SECRET}}}}
  files: [{{name: shop, path: "shop/*.ndjson"}}]
segments:
  - {{name: Cart abandoners, from: heap, sync_to: [userflow], every: hourly}}
  - {{name: Loyal buyers, from: heap, sync_to: [userflow], every: hourly}}
destinations:
  userflow: {{api_key: {{env: USERFLOW_API_KEY}}}}
"""
CASES = {
    "import dagster": "import dagster",
    "+ heap_integration.definitions, three environments": (
        "import dagster, heap_integration.definitions as definitions\n"
        f"for name in {NAMES!r}: getattr(definitions, name).resolve_all_asset_specs()"
    ),
}


def cpu_seconds(code: str, folder: Path) -> float:
    """Run Python code in a process of its own and return its user and system time."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit("the measured process failed")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number, name in enumerate(NAMES, start=1):
            settings = folder / "environments" / name
            settings.mkdir(parents=True)
            (settings / "environment.yaml").write_text(ENVIRONMENT.format(app_id=f"100000000{number}"))
        for code in CASES.values():
            cpu_seconds(code, folder)  # the first run compiles
        found = [[cpu_seconds(code, folder) for code in CASES.values()] for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*found, strict=True)]
    for name, seconds in zip(CASES, medians, strict=True):
        print(f"{name:<52}{seconds:>6.2f} CPU s")
    print(f"{'difference (at most 1.5 is the aim)':<52}{medians[1] - medians[0]:>6.2f} CPU s")


if __name__ == "__main__":
    main()
