"""The demo does what the README promises, twice."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    "HEAP_API_KEY",
    "HEAP_SEGMENT_SYNC_SECRET",
    "USERFLOW_API_KEY",
    "USERFLOW_WEBHOOK_SECRET",
    "SHOP_WRITE_KEY",
    "USERPILOT_API_KEY",
    "CUSTOMERIO_SITE_ID",
    "CUSTOMERIO_API_KEY",
    "CUSTOMERIO_APP_API_KEY",
    "CRM_WEBHOOK_SECRET",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the demo needs, on ports of its own and with secrets of its own."""
    shutil.copytree(ROOT / "environments" / "sandbox", tmp_path / "environments" / "sandbox")
    for name in ("workspace.yaml", "dagster.yaml", "requirements-demo.txt"):
        shutil.copy(ROOT / name, tmp_path)
    settings = tmp_path / "environments" / "sandbox" / "environment.yaml"
    settings.write_text(settings.read_text().replace(":8470", f":{free_port()}"))
    variables = {name: secrets.token_hex(16) for name in NAMES}
    variables["CRM_WEBHOOK_SECRET"] = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
    (settings.parent / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    for wheel in (ROOT / "data" / "demo").glob("*.whl"):
        (tmp_path / "data" / "demo").mkdir(parents=True)
        shutil.copy(wheel, tmp_path / "data" / "demo")
    return tmp_path


def demo(project: Path, *options: str) -> dict[str, list[int]]:
    """Run the demo and return the numbers of its table."""
    command = [Path(sys.executable).with_name("heap-integration"), "demo", "--once", *options]
    environ = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The counts add up at both ends." in done.stdout
    rows = re.findall(r"│ ([a-z ]+?) +│ +([\d,]+) │ +([\d,]+) │ +([\d,]*) │", done.stdout)
    return {name: [int(number.replace(",", "")) for number in numbers if number] for name, *numbers in rows}


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_a_second_start_continues_and_sends_nothing_twice_and_no_file_holds_a_secret(project: Path) -> None:
    first = demo(project, "--days", "3", "--receiver-port", str(port := free_port()))
    assert first["events accepted"][0] == first["events accepted"][1] == first["events accepted"][2] > 300
    assert first["profiles accepted"] == [43, 43, 43]
    assert first["pending"] == [0, 0]
    assert first["events back home"] == first["events accepted"]
    assert first["members and profiles added"][0] > first["members and profiles removed"][0] > 0
    second = demo(project, "--days", "3", "--receiver-port", str(port))
    assert second["events accepted"] == [0, *first["events accepted"][1:]]
    assert second["lines read"][0] == 0
    assert second["events back home"] == [0, *first["events accepted"][1:]]
    assert second["members now"][1:] == first["members now"][1:]
    values = [line.partition("=")[2] for line in (project / "environments/sandbox/.env").read_text().splitlines()]
    written = [path for path in (project / "data").rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in written:
        content = path.read_bytes()
        assert not [name for name, value in zip(NAMES, values, strict=True) if value.encode() in content], path
