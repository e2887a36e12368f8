from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from heap_integration_tests.support.venvs import ROOT, venv


@pytest.mark.slow
@pytest.mark.parametrize("system", ["bigquery", "snowflake", "redshift"])
def test_the_client_does_what_a_connection_promises(system: str, tmp_path: Path) -> None:
    """The packages of the clouds' warehouses don't go together with all of ours: their tests run beside these."""
    folder = Path(__file__).parent / "clouds"
    # the other run measures and reports for itself alone
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    done = subprocess.run(
        [venv("clouds"), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path, "-k", system, folder],
        cwd=ROOT,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
