"""Which of Heap's user ids have become whose, as far as this environment has told Heap."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import func, select

from heap_integration.store import insert_new
from heap_integration.store.tables import identified_users

if TYPE_CHECKING:
    from heap_integration.store import Store

# Heap says "one-month period" and not which: the longest month is safe.
MONTH_SECONDS = 31 * 86_400.0
USER_IDS_A_MONTH = 10
ANOTHER_IDENTITY = "Heap would drop the merge: the user id belongs to another identity already"
TOO_MANY_USER_IDS = f"Heap would drop the merge: {USER_IDS_A_MONTH} user ids became this identity within a month"


class WouldBeDropped(Exception):
    """Heap would answer 200 to this merge and do nothing; says why."""


class KnownMerges(Protocol):
    """What is known of merges."""

    def is_known(self, user_id: int, identity: str) -> bool:
        """Say whether Heap has been told already; raises ``WouldBeDropped``."""

    def keep(self, user_id: int, identity: str) -> None:
        """Note that Heap has acknowledged a merge."""


class Merges:
    """The merges that Heap has acknowledged; it tells nobody which of them it dropped.

    Its rules: a user id has one identity for ever, and an identity gets 10 user ids within one month.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def is_known(self, user_id: int, identity: str) -> bool:
        """Say whether Heap has been told already.

        Raises:
            WouldBeDropped: by one of Heap's rules.
        """
        users = identified_users.c
        with self._store.read() as connection:
            given = select(users.identity).where(users.heap_user_id == user_id)
            found = connection.execute(given).scalar_one_or_none()
            if found is not None and found != identity:
                raise WouldBeDropped(ANOTHER_IDENTITY)
            if found is not None:
                return True
            since = self._clock() - MONTH_SECONDS
            recent = select(func.count()).where(users.identity == identity, users.at > since)
            if connection.execute(recent).scalar_one() >= USER_IDS_A_MONTH:
                raise WouldBeDropped(TOO_MANY_USER_IDS)
        return False

    def keep(self, user_id: int, identity: str) -> None:
        """Note that Heap has acknowledged a merge."""
        row = {"heap_user_id": user_id, "identity": identity, "at": self._clock()}
        with self._store.begin() as connection:
            insert_new(connection, identified_users, row)
