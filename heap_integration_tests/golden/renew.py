"""Writes the models anew as each warehouse gets them.

Usage: python -m heap_integration_tests.golden.renew [system ...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from heap_integration_tests.golden.compiling import HERE, TARGETS, compiled


def main() -> None:
    """Renew the files of the systems that are named, or of all."""
    for system in sys.argv[1:] or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            models = compiled(system, Path(folder))
        place = HERE / system
        place.mkdir(exist_ok=True)
        for file in place.glob("*.sql"):
            file.unlink()
        for name, sql in models.items():
            (place / f"{name}.sql").write_text(sql)
        print(f"{system}: {len(models)} models")


if __name__ == "__main__":
    main()
