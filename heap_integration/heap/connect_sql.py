"""The HTTP form of Connect SQL, by which people ask Heap's data with a key; no part of Heap's published API."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import orjson
from httpx import codes

PATH = "/api/connect/query"
CONNECT_SECONDS = 10
_ROWS = ("rows", "data", "results", "result")


class ConnectSqlError(ValueError):
    """The question wasn't answered; the message is fit to be shown."""


@dataclass(frozen=True)
class Answer:
    """The columns of an answer, and its rows: a value for each column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class ConnectSql:
    """A client of ``POST <url>/api/connect/query`` with a Bearer key, one question at a time."""

    def __init__(self, url: str, key: str, client: httpx.Client | None = None) -> None:
        self._address = f"{url.rstrip('/')}{PATH}"
        self._key = key
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._client = client or httpx.Client()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def ask(self, sql: str, seconds: float) -> Answer:
        """Return the answer to one query, all of which must be there within ``seconds``.

        The rows may be lists beside ``columns``, or objects, whose keys are the columns; under ``rows``, ``data`` or
        ``results``, or the whole answer.

        Raises:
            ConnectSqlError: there is no answer, a refusal, or none that can be read.
        """
        try:
            answer, content = self._posted(orjson.dumps({"query": sql}), seconds)
        except httpx.TimeoutException as error:
            raise ConnectSqlError(f"no answer from {self._address} within {seconds:g} seconds") from error
        except httpx.RequestError as error:
            raise ConnectSqlError(f"no answer from {self._address}: {error or type(error).__name__}") from error
        if not answer.is_success:
            raise ConnectSqlError(_refusal(answer, content.decode(errors="replace").replace(self._key, "***")))
        return _read(content)

    def _posted(self, body: bytes, seconds: float) -> tuple[httpx.Response, bytes]:
        end = time.monotonic() + seconds
        timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        pieces = []
        with self._client.stream("POST", self._address, content=body, headers=self._headers, timeout=timeout) as answer:
            # the timeout alone counts each silence anew
            for piece in answer.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > end:
                    raise httpx.ReadTimeout("the time is over")
        return answer, b"".join(pieces)


def _refusal(answer: httpx.Response, text: str) -> str:
    told = "".join(letter if letter.isprintable() else " " for letter in text[:300]).strip()
    words = f"Connect SQL answered {answer.status_code}: {told or answer.reason_phrase}"
    if answer.status_code in (codes.UNAUTHORIZED, codes.FORBIDDEN):
        return f"{words}. Check the key of heap_connect.api"
    if answer.status_code == codes.NOT_FOUND:
        return f"{words}. This address has no Connect SQL: ask the warehouse itself"
    return words


def _read(body: bytes) -> Answer:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ConnectSqlError("Connect SQL answered something that isn't JSON") from error
    columns: Any = None
    if isinstance(answer, Mapping):
        columns = answer.get("columns")
        answer = next((answer[name] for name in _ROWS if name in answer), None)
    if not isinstance(answer, Sequence) or isinstance(answer, str):
        raise ConnectSqlError("Connect SQL answered without rows")
    names = _names(columns, answer)
    return Answer(names, tuple(_values(row, names) for row in answer))


def _names(columns: Any, rows: Sequence[Any]) -> tuple[str, ...]:
    if isinstance(columns, Sequence) and not isinstance(columns, str):
        return tuple(str(each.get("name") if isinstance(each, Mapping) else each) for each in columns)
    # an object may leave out what is empty in its row
    return tuple(dict.fromkeys(name for row in rows if isinstance(row, Mapping) for name in row))


def _values(row: Any, names: Sequence[str]) -> tuple[Any, ...]:
    if isinstance(row, Mapping):
        return tuple(row.get(name) for name in names)
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != len(names):
        raise ConnectSqlError("Connect SQL answered with a row that doesn't fit its columns")
    return tuple(row)
