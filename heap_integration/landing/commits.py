"""Lines that arrive while a commit runs share the next one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Group = list[tuple[bytes, "asyncio.Future[None]"]]

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
WARY_SECONDS = 5.0


class LandingClosed(Exception):
    """Nothing more is taken."""


class LandingUnavailable(OSError):
    """A line can't be made durable now: it may come again later.

    Whoever sends it again may land it twice: where the answer is lost or late, the line may be kept.
    """


class GroupCommit:
    """Makes lines durable in the order of their arrival, many at once, for one event loop.

    ``commit`` gets the lines of a group in a thread of its own and returns when they are durable. What
    takes longer than ``patience`` seconds is refused, and so is everything until it is over: senders
    have their own patience, and memory its end.
    """

    def __init__(self, commit: Callable[[list[bytes]], None], patience: float = PATIENCE_SECONDS) -> None:
        self.last_durable: float | None = None
        """When a line was last made durable, on the monotonic clock."""
        self._commit = commit
        self._patience = patience
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="landing")
        self._waiting: Group = []
        self._running = False
        self._closed = False
        self._trouble = ""
        self._trouble_at = 0.0
        self._overdue = False

    async def append(self, line: bytes) -> None:
        """Return when ``line``, which has no newline, is durable.

        Raises:
            LandingClosed: after ``close``.
            LandingUnavailable: it can't be made durable.
        """
        if self._closed:
            raise LandingClosed
        if b"\n" in line:
            raise ValueError("a landing line can't hold a newline")
        if self._overdue:
            raise LandingUnavailable(self._trouble)
        self._loop = asyncio.get_running_loop()
        durable: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((line, durable))
        if not self._running:
            self._running = True
            # Not at once: the others whose requests this turn of the loop has read shall come along.
            self._loop.call_soon(self._start)
        await durable

    def trouble(self) -> str:
        """Return why nothing was taken within the last seconds; empty if all was, or nothing has come."""
        recent = self._overdue or time.monotonic() - self._trouble_at < WARY_SECONDS
        return self._trouble if recent else ""

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the thread, between two commits."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def run_after(self, seconds: float, work: Callable[[], object]) -> None:
        """Run ``work`` between two commits in some seconds, unless all is closed by then; called by ``commit``."""

        def submit() -> None:
            if not self._closed:
                self._thread.submit(work)

        self._loop.call_soon_threadsafe(self._loop.call_later, seconds, submit)

    async def close(self, last: Callable[[], object] = lambda: None) -> None:
        """Make durable what waits, run ``last`` and end the thread. Closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        while self._running:
            await asyncio.sleep(0.01)
        await self.run(last)
        self._thread.shutdown()

    def _start(self) -> None:
        # Whoever has gone away meanwhile doesn't expect its line to be kept.
        group = [entry for entry in self._waiting if not entry[1].done()]
        self._waiting = []
        if not group:
            self._running = False
            return
        alarm = self._loop.call_later(self._patience, self._give_up, group)
        self._thread.submit(self._work, group, alarm)

    def _work(self, group: Group, alarm: asyncio.TimerHandle) -> None:
        failure: Exception | None = None
        try:
            self._commit([line for line, _ in group])
        except Exception as error:
            # Whatever it is, it belongs to those who wait: nobody else looks at this thread.
            failure = error
        self._loop.call_soon_threadsafe(self._settle, group, alarm, failure)

    def _settle(self, group: Group, alarm: asyncio.TimerHandle, failure: Exception | None) -> None:
        alarm.cancel()
        self._overdue = False
        if failure is None:
            self._succeeded()
            for _, durable in group:
                if not durable.done():
                    durable.set_result(None)
        else:
            self._failed(group, failure)
        self._start()

    def _succeeded(self) -> None:
        self.last_durable = time.monotonic()
        if self._trouble:
            log.info("lines are durable again")
            self._trouble = ""

    def _failed(self, group: Group, failure: Exception) -> None:
        reason = str(failure)
        if not self._trouble:
            # Once for each time of trouble: a full disk is not helped by a line for each request.
            log.error("nothing can be made durable: %s", failure.__cause__ or reason)
        self._trouble, self._trouble_at = reason, time.monotonic()
        for _, durable in group:
            if not durable.done():
                durable.set_exception(LandingUnavailable(reason) if isinstance(failure, OSError) else failure)

    def _give_up(self, group: Group) -> None:
        self._overdue = True
        refused, self._waiting = group + self._waiting, []
        self._failed(refused, LandingUnavailable(f"nothing has become durable for {self._patience:g} s"))
