-- depends_on: {{ ref('int_merged_users') }}
{{ config(
    materialized="incremental",
    incremental_strategy=day_strategy(),
    unique_key="session_day",
    partition_by=day_partition("session_day"),
) }}
{%- set of_heap = var("events_from") == "heap_connect" -%}
{%- set newer %}
{{ newer_days(ref('int_events'), "session_day", "session_day") }}
{%- if of_heap %}
union all
select theirs.session_day
from (
    select cast(started_at as date) as session_day, count(*) as sessions
    from {{ ref('stg_heap__sessions') }}
    where user_id is not null and started_at is not null
    group by cast(started_at as date)
) as theirs
left join (
    select session_day, count(*) as sessions from {{ this }} where is_of_heap = 1 group by session_day
) as ours on ours.session_day = theirs.session_day
where ours.session_day is null or ours.sessions <> theirs.sessions
union all
select ours.session_day
from {{ this }} as ours
inner join {{ ref('int_merged_users') }} as merged on merged.from_user_id = ours.user_id
{%- endif %}
{%- endset %}
{%- set some_days = is_incremental() or days_asked() %}
{%- set days = days_found(newer) if some_days else [] %}
with counted as (
    select
        session_id,
        min(user_id) as user_id,
        min(session_started_at) as started_at,
        min(session_day) as session_day,
        max(occurred_at) as ended_at,
        count(*) as events,
        count(distinct event_name) as unique_event_types,
        min(case when page_url is not null or referrer is not null or utm_source is not null then occurred_at end)
            as landed_at
    from {{ ref('int_events') }}
    {% if some_days -%}
    where {{ among_days("session_day", days) }}
    {%- endif %}
    group by session_id
),

-- Where a session came from is told by its first event that has a page or a campaign.
landed as (
    select
        events.*,
        row_number() over (partition by events.session_id order by events.arrived, events.event_id) as nth
    from {{ ref('int_events') }} as events
    inner join counted
        on counted.session_id = events.session_id
            and events.occurred_at = coalesce(counted.landed_at, counted.started_at)
    where (
        counted.landed_at is null
        or events.page_url is not null or events.referrer is not null or events.utm_source is not null
    )
    {% if some_days -%}
    and {{ among_days("events.session_day", days) }}
    {%- endif %}
),

from_events as (
    select
        counted.session_id,
        counted.user_id,
        counted.started_at,
        counted.ended_at,
        counted.session_day,
        counted.events,
        counted.unique_event_types,
        landed.page_url as landing_page,
        landed.referrer,
        landed.utm_source,
        landed.utm_medium,
        landed.utm_campaign,
        landed.utm_term,
        landed.utm_content,
        landed.gclid,
        landed.platform,
        landed.device_type,
        landed.browser,
        landed.country,
        landed.region,
        landed.city
    from counted
    left join landed on landed.session_id = counted.session_id and landed.nth = 1
)

{% if of_heap -%}
, of_heap as (
    select
        session_id,
        user_id,
        started_at,
        cast(started_at as date) as session_day,
        case when landing_page is null then null
            else {{ dbt.concat(["landing_page", "coalesce(landing_page_query, '')"]) }} end as landing_page,
        referrer,
        utm_source,
        utm_medium,
        utm_campaign,
        utm_term,
        utm_content,
        gclid,
        platform,
        device_type,
        browser,
        country,
        region,
        city
    from {{ ref('stg_heap__sessions') }}
    where user_id is not null and started_at is not null
),

told as (
    select * from of_heap
    {% if some_days -%}
    where {{ among_days("session_day", days) }}
    {%- endif %}
),

counts_again as (
    select
        session_id,
        max(occurred_at) as ended_at,
        count(*) as events,
        count(distinct event_name) as unique_event_types
    from {{ ref('int_events') }}
    where session_id in (select session_id from told)
    group by session_id
)

select
    told.session_id,
    told.user_id,
    told.started_at,
    case when counts_again.ended_at > told.started_at then counts_again.ended_at else told.started_at end as ended_at,
    told.session_day,
    coalesce(counts_again.events, 0) as events,
    coalesce(counts_again.unique_event_types, 0) as unique_event_types,
    told.landing_page,
    told.referrer,
    told.utm_source,
    told.utm_medium,
    told.utm_campaign,
    told.utm_term,
    told.utm_content,
    told.gclid,
    told.platform,
    told.device_type,
    told.browser,
    told.country,
    told.region,
    told.city,
    1 as is_of_heap,
    {{ computed_at() }} as computed_at
from told
left join counts_again on counts_again.session_id = told.session_id
union all
{%- endif %}
select
    from_events.*,
    0 as is_of_heap,
    {{ computed_at() }} as computed_at
from from_events
{% if of_heap -%}
where from_events.session_id not in (select session_id from of_heap)
{%- endif %}
