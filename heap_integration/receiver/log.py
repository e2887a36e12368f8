"""Logs in one form for people, and in one for machines."""

from __future__ import annotations

import logging

from pythonjsonlogger.json import JsonFormatter

PLAIN = "%(asctime)s %(levelname)s %(message)s"


def configure(json: bool, level: int = logging.INFO) -> None:
    """Write all logs of this process to standard error: lines of text, or one JSON object a line.

    A JSON line holds ``timestamp`` (ISO 8601), ``level``, ``logger``, ``message``, and what else was
    given to the logger.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_json() if json else logging.Formatter(PLAIN))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _json() -> logging.Formatter:
    return JsonFormatter(
        ["levelname", "name", "message"], rename_fields={"levelname": "level", "name": "logger"}, timestamp=True
    )
