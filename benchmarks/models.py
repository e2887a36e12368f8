"""What it costs to build all dbt models on DuckDB: all days at once, and one more day.

Fills a warehouse with events of made-up people: sessions of ten events, a third of them pages with an address, some
with a campaign, all with properties, and an outcome for each. Each build is dbt in a process of its own, without its
tests.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heap_integration.models.project import DbtProject
    from heap_integration.warehouse import Warehouse

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SESSION = 10
EVENTS = """
insert into product_events
select $before + row_number() over (order by moment), md5(concat($before, '/', s, '/', i))::uuid,
       concat('m', s, '-', i),
       case when i % 3 = 1 then 'page' else 'track' end,
       case when i % 3 = 1 then 'Page' else (
           ['Search', 'Feature: Export', 'Feature: Share', 'Feature: Import', 'Signup Started', 'Email Verified',
            'Profile Completed', 'First Purchase', 'Invite', 'Comment', 'Upload', 'Login']
       )[1 + (hash(s, i, 'name') % 12)::integer] end,
       concat('user-', who), null, moment, moment::date, moment + to_seconds(2), 'benchmark',
       json_object('plan', ['free', 'pro', 'team'][1 + (who % 3)::integer], 'amount', i,
                   'label', concat('item ', s % 997), 'platform', 'web', 'device_type', 'Desktop')::varchar,
       '{}',
       case when i % 3 <> 1 then '{}' else json_object(
           'page', json_object('title', 'A page', 'url', concat(
               'https://shop.example/p/', hash(s, i) % 500,
               case when i = 1 and s % 5 = 0 then '?utm_source=news&utm_medium=email&utm_campaign=spring' else '' end
           ))
       )::varchar end,
       'benchmark', i, null
from (
    select s, i,
           $first::date + to_seconds((hash(s, 'second') % ($days * 86400))::integer) + to_seconds(i * 90) as moment,
           ((hash(s, 'who') % $users) * (hash(s, 'which') % 1000) / 1000)::bigint as who
    from range($sessions) as sessions (s), range(1, 11) as events (i)
)
where moment::date < $first::date + to_days($days::integer)
"""
OUTCOMES = """
insert into event_outcomes
select seq, event_key, event_day, type, origin, 1, '', received_at + to_seconds(3 + (seq % 40)::integer)
from product_events where seq > $before
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=180)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="models-", dir=options.folder) as folder:
        compare(Path(folder), options.events, options.days, options.users)


def compare(folder: Path, events: int, days: int, users: int) -> None:
    """Measure a full build and one of one more day, and print what took how long."""
    from heap_integration.environment import Environment
    from heap_integration.models.project import DbtProject
    from heap_integration.warehouse import Warehouse
    from heap_integration.warehouse.systems.system import Surroundings

    first = datetime.now(UTC).date() - timedelta(days=days)
    settings = {"name": "benchmark", "heap": {"app_id": "1234567890"}, "start_date": first}
    environment = Environment.model_validate(settings).anchored(folder)
    warehouse = Warehouse(environment.own_tables, environment.warehouse_memory_mb)
    project = DbtProject(environment, Surroundings(environment.name, warehouse, {}))
    fill(warehouse, first, days, events, users)
    measure(project, f"all {days} days")
    fill(warehouse, first + timedelta(days=days), 1, events // days, users)
    measure(project, "one more day")
    print(f"\nthe file: {warehouse.path.stat().st_size / 1e6:,.0f} MB")


def fill(warehouse: Warehouse, first: date, days: int, events: int, users: int) -> None:
    """Put events and their outcomes into the hub's own tables."""
    with warehouse.write(ample=True) as con:
        con.execute("set memory_limit = '8GB'; set preserve_insertion_order = true")
        (before,) = con.execute("select coalesce(max(seq), 0) from product_events").fetchone() or (0,)
        given = {"before": before, "first": first, "days": days, "sessions": events // SESSION, "users": users}
        con.execute(EVENTS, given)
        con.execute(OUTCOMES, {"before": before})
        (rows,) = con.execute("select count(*) from product_events").fetchone() or (0,)
    print(f"{rows:,} events", flush=True)


def measure(project: DbtProject, name: str) -> None:
    """Build all models and print what it cost: wall time, CPU of dbt's process, and the slowest models."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    report = project.build(tests=False)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"\n{name}: {wall:.1f} s, {cpu:.1f} s of CPU, peak {after.ru_maxrss / 1024:,.0f} MB, {report.counts()}")
    for result in sorted(report.results, key=lambda each: -each.seconds)[:12]:
        print(f"  {result.seconds:6.2f} s  {result.name}")
    if report.failed:
        sys.exit("\n".join(report.problems()))


if __name__ == "__main__":
    main()
