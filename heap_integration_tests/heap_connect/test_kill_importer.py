"""An import that is killed at any moment loads each dump once, and leaves nobody with half of one."""

from __future__ import annotations

import random
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from heap_integration.heap_connect import importer, places
from heap_integration.sandbox.dumps import DumpTable
from heap_integration.warehouse.systems.system import WarehouseSettings
from heap_integration_tests.heap_connect.importing import MIGRATIONS, Importing, click, clicks, users
from heap_integration_tests.support.warehouses import surroundings

KILLS = 20
EVENTS = 2_000


def changed(number: int) -> tuple[range, range]:
    """Return the events and the users of a dump: half of them are the last one's, too."""
    first = number * EVENTS // 2
    return range(first, first + EVENTS), range(number * 10, number * 10 + 20)


def write(importing: Importing, number: int) -> None:
    """Write a dump whose every row bears its number."""
    events, people = changed(number)
    importing.bucket.write(
        number,
        [
            clicks([click(each, word=number) for each in events], {"word": "long"}, rows_per_file=EVENTS // 3),
            users([{"user_id": each, "word": number} for each in people], {"word": "long"}),
            DumpTable("user_migrations", MIGRATIONS, [{"from_user_id": number, "to_user_id": 1}]),
        ],
    )


def stands(importing: Importing, dumps: int) -> bool:
    """Say whether events and users are exactly as so many dumps leave them."""
    if not dumps:
        return importing.importer().tables() == []
    events: dict[int, int] = {}
    people: dict[int, int] = {}
    for number in range(1, dumps + 1):
        events |= dict.fromkeys(changed(number)[0], number)
        people |= dict.fromkeys(changed(number)[1], number)
    found = importing.rows("click", "event_id", "word"), importing.rows("users", "user_id", "word")
    return found == (sorted(events.items()), sorted(people.items()))


def import_until_killed(folder: str, settings: WarehouseSettings, begins: Connection) -> None:
    """Load what waits, in a process of its own."""
    with settings.connect(surroundings(Path(folder))) as connection:
        importing = Importing(Path(folder), settings, connection)
        importing.importer().waiting()
        begins.send(None)
        importing.run()


def started(importing: Importing) -> BaseProcess:
    """Start an importer, and return when it begins its work."""
    context = get_context("forkserver")
    context.set_forkserver_preload(
        ["duckdb", "pyarrow", "sqlglot", "adbc_driver_postgresql.dbapi", importer.__name__, places.__name__]
    )
    begins, told = context.Pipe(duplex=False)
    arguments = (str(importing.folder), importing.warehouse, told)
    process = context.Process(target=import_until_killed, args=arguments)
    process.start()
    begins.recv()
    return process


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_9_at_20_moments_loads_each_dump_once(importing: Importing) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    write(importing, 1)
    process, begin = started(importing), time.monotonic()
    process.join()
    one_dump = time.monotonic() - begin
    kills, written, loaded = 0, 1, []
    while kills < KILLS:
        while written < 4 or len(importing.importer().waiting()) < 4:
            written += 1
            write(importing, written)
        process = started(importing)
        time.sleep(chance.uniform(0, 3 * one_dump))
        kills += process.is_alive()
        process.kill()
        process.join()
        loaded.append(written - len(importing.importer().waiting()))
        assert stands(importing, loaded[-1])

    importing.run()
    print(f"dumps loaded before each kill: {loaded}")
    assert len(set(loaded)) > 1
    assert stands(importing, written)
    assert importing.rows("user_migrations", "from_user_id") == [(written,)]
    assert not [*importing.folder.glob("*.dumps")]
