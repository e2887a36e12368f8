"""Runs the tap against another address than Userflow's, within the tap's own virtual environment."""

import sys

from tap_userflow.client import UserFlowStream  # type: ignore[import-not-found]
from tap_userflow.tap import TapUserFlow  # type: ignore[import-not-found]

UserFlowStream.url_base = sys.argv.pop(1)
TapUserFlow.cli()
