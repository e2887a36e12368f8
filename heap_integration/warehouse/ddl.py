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
create table if not exists heap_segments (
    segment_id bigint not null,
    name varchar not null,
    told_at double not null,
    drained_at double not null
);
create table if not exists segment_changes (
    segment_id bigint not null,
    identity varchar not null,
    member boolean not null,
    task_order double not null,
    page_number integer not null
);
create table if not exists applied_pages (
    sync_task_id varchar not null,
    page_number integer not null
);
create table if not exists segment_members (
    segment_id bigint not null,
    identity varchar not null
);
create table if not exists audience_members (
    audience varchar not null,
    as_of date not null,
    identity varchar not null
);
create table if not exists audience_runs (
    audience varchar not null,
    as_of date not null,
    moment timestamp not null,
    members bigint not null,
    definition varchar not null,
    computed_at timestamp not null
);
create table if not exists sync_baseline (
    sync varchar not null,
    identity varchar not null,
    owned boolean not null,
    properties varchar
);
create table if not exists sync_plan (
    sync varchar not null,
    position bigint not null,
    record_key uuid not null,
    identity varchar not null,
    action utinyint not null,
    properties varchar,
    previous varchar,
    doubtful boolean not null
);
create table if not exists sync_rejections (
    sync varchar not null,
    identity varchar not null,
    action utinyint not null,
    reason varchar not null,
    settled_at timestamp not null
);
create table if not exists sync_adoptions (
    sync varchar not null,
    members bigint not null,
    adopted_at timestamp not null
);
create table if not exists sync_guests (
    sync varchar not null,
    identity varchar not null
);
create table if not exists sync_changes (
    sync varchar not null,
    added bigint not null,
    removed bigint not null,
    updated bigint not null,
    settled_at timestamp not null
);
create table if not exists sync_runs (
    sync varchar not null,
    finished_at timestamp not null,
    wanted bigint not null,
    held bigint not null,
    added bigint not null,
    removed bigint not null,
    updated bigint not null,
    unchanged bigint not null,
    rejected bigint not null,
    pending bigint not null,
    unknown bigint not null,
    unmapped bigint not null,
    ambiguous bigint not null,
    placeholders bigint not null,
    source_changed_at timestamp
);
create or replace view hub_events as
select user_id as identity, name as event, timestamp as time, properties
from product_events where type in ('track', 'page', 'screen') and user_id is not null and suppressed is null;
create or replace view hub_traits as
select user_id as identity, seq, least(timestamp, received_at) as told_at, traits as properties
from product_events where type = 'identify' and user_id is not null and suppressed is null;
create or replace macro hub_users_at(until) as table
select identity, '{' || coalesce(string_agg(to_json(trait) || ':' || value, ','), '') || '}' as properties
from (
    select identity, trait, max_by(value, row(told_at, seq)) as value
    from (
        select identity, seq, told_at,
               unnest(case when json_keys(properties) = [] then [null] else json_keys(properties) end) as trait,
               unnest(json_extract(properties, '$.*')) as value
        from main.hub_traits where told_at < until
    )
    group by identity, trait
)
group by identity;
create or replace view hub_users as from hub_users_at('infinity'::timestamp);
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
create or replace view sync_log.sync_runs as from main.sync_runs;
create or replace view sync_log.sync_rejections as
select sync, identity, case action when 1 then 'add' when 2 then 'remove' else 'update' end as action, reason,
       settled_at
from main.sync_rejections;
"""

TABLE_NAMES = frozenset(re.findall(r"create table if not exists (\w+)", TABLES))
