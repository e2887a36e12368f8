"""The tables of the hub in the warehouse."""

import re

TABLES = """
create table if not exists product_events (
    seq bigint not null,
    event_key uuid not null,
    message_id varchar not null,
    type varchar not null,
    name varchar not null,
    user_id varchar,
    anonymous_id varchar,
    timestamp timestamp not null,
    event_day date not null,
    received_at timestamp not null,
    source varchar not null,
    properties varchar not null,
    traits varchar not null,
    context varchar not null,
    origin varchar not null,
    line bigint not null,
    suppressed varchar
);
create table if not exists event_outcomes (
    seq bigint not null,
    event_key uuid not null,
    event_day date not null,
    type varchar not null,
    origin varchar not null,
    status utinyint not null,
    reason varchar not null,
    settled_at timestamp not null
);
create table if not exists rejected_rows (
    origin varchar not null,
    line bigint not null,
    reason varchar not null,
    raw varchar not null,
    loaded_at timestamp not null
);
create table if not exists loaded_inputs (
    origin varchar not null,
    fingerprint varchar not null,
    last_line bigint not null,
    complete boolean not null,
    read bigint not null,
    loaded bigint not null,
    duplicates bigint not null,
    refused bigint not null,
    unused bigint not null,
    loaded_at timestamp not null
);
create table if not exists input_files (
    source varchar not null,
    name varchar not null,
    stamp varchar not null,
    size bigint not null,
    content varchar not null,
    rules varchar not null,
    fingerprint varchar not null,
    after_line bigint not null,
    found varchar not null,
    seen_at timestamp not null
);
create table if not exists table_cursors (
    fingerprint varchar not null,
    source varchar not null,
    table_name varchar not null,
    reached bigint,
    floor bigint,
    window_mark varchar not null,
    unplaced bigint not null,
    moved_at timestamp not null
);
create table if not exists table_rows (
    fingerprint varchar not null,
    position bigint not null,
    row_hash ubigint not null
);
create table if not exists settled_batches (
    flow varchar not null,
    batch bigint not null
);
create table if not exists segment_changes (
    segment_id bigint not null,
    segment_name varchar not null,
    identity varchar not null,
    member boolean not null,
    task_order double not null,
    page_number integer not null
);
create table if not exists applied_pages (
    sync_task_id varchar not null,
    page_number integer not null
);
create table if not exists sync_baseline (
    sync varchar not null,
    identity varchar not null
);
create table if not exists sync_plan (
    sync varchar not null,
    record_key uuid not null,
    identity varchar not null,
    member boolean not null
);
create table if not exists sync_changes (
    sync varchar not null,
    added bigint not null,
    removed bigint not null,
    settled_at timestamp not null
);
create table if not exists sync_runs (
    sync varchar not null,
    finished_at timestamp not null,
    added bigint not null,
    removed bigint not null,
    unchanged bigint not null,
    rejected bigint not null,
    pending bigint not null
);
create schema if not exists sync_log;
create or replace view sync_log.event_deliveries as
select event.event_day, event.timestamp, event.received_at, event.source, event.type, event.name,
       event.user_id, event.anonymous_id, event.message_id, event.event_key,
       case outcome.status when 1 then 'accepted' when 2 then 'rejected' when 3 then 'suppressed' else 'pending' end
           as outcome,
       coalesce(outcome.reason, '') as reason, outcome.settled_at, event.origin, event.line
from main.product_events as event left join main.event_outcomes as outcome on outcome.seq = event.seq
union all by name
select 'rejected' as outcome, reason, loaded_at as settled_at, origin, line from main.rejected_rows;
"""

TABLE_NAMES = frozenset(re.findall(r"create table if not exists (\w+)", TABLES))
