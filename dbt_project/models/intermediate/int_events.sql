-- depends_on: {{ ref('int_merged_users') }}
{{ config(
    materialized="incremental",
    incremental_strategy=day_strategy(),
    unique_key="event_day",
    partition_by=day_partition("event_day"),
    on_schema_change="append_new_columns",
) }}
{%- set gap = var("session_minutes") | int %}
{#- What differs is told by the number of a day's events and the last that arrived, not by the newest time: events come
    late. Users may have been merged since. A session may go on on the day after one that has changed. -#}
{%- set changed %}
with changed as (
    select theirs.event_day
    from (
        select event_day, count(*) as events, max(arrived) as arrived
        from {{ ref('int_source_events') }}
        group by event_day
    ) as theirs
    left join (
        select event_day, count(*) as events, max(arrived) as arrived from {{ this }} group by event_day
    ) as ours on ours.event_day = theirs.event_day
    where ours.event_day is null or ours.events <> theirs.events or ours.arrived <> theirs.arrived
    union all
    select distinct ours.event_day
    from {{ this }} as ours
    inner join {{ ref('int_merged_users') }} as merged on merged.from_user_id = ours.user_id
)

select event_day from changed
union all
select known.event_day
from (select distinct event_day from {{ this }}) as known
inner join changed on changed.event_day = {{ days_before("known.event_day", 1) }}
{%- endset %}
{%- set some_days = is_incremental() or days_asked() %}
{%- set days = days_found(changed, more=1 if is_incremental() else 0) if some_days else [] -%}

-- Sessions cross midnight: who was active just before one of the days goes on in the session of then.
with timeline as (
    select row_key, user_id, occurred_at, cast(null as {{ dbt.type_timestamp() }}) as known_start
    from {{ ref('int_source_events') }}
    where session_id is null
    {% if some_days -%}
    and {{ among_days("event_day", days) }}
    {%- endif %}
    {% if is_incremental() -%}
    union all
    select null as row_key, user_id, occurred_at, session_started_at as known_start
    from {{ this }}
    where {{ among_days("event_day", days_ahead(days)) }}
        and has_own_session = 0
        and occurred_at >= {{ minutes_after("cast(event_day as " ~ dbt.type_timestamp() ~ ")", 1440 - gap) }}
    {%- endif %}
),

steps as (
    select
        row_key,
        user_id,
        occurred_at,
        known_start,
        lag(occurred_at) over (partition by user_id order by occurred_at, row_key) as previous_at
    from timeline
),

sessions as (
    select
        row_key,
        max(
            case
                when known_start is not null then known_start
                when previous_at is null or occurred_at > {{ minutes_after("previous_at", gap) }} then occurred_at
            end
        ) over (partition by user_id order by occurred_at, row_key rows between unbounded preceding and current row)
            as started_at
    from steps
)

-- The events are read a second time: kept from the first, all of their columns would lie in memory meanwhile.
select
    arriving.event_id,
    arriving.user_id,
    coalesce(
        arriving.session_id, {{ dbt.concat(["arriving.user_id", "'/'", epoch_text("sessions.started_at")]) }}
    ) as session_id,
    arriving.event_name,
    arriving.occurred_at,
    arriving.event_day,
    '{{ var("events_from") }}' as source,
    arriving.arrived,
    arriving.page_url,
    arriving.page_title,
    arriving.referrer,
    arriving.utm_source,
    arriving.utm_medium,
    arriving.utm_campaign,
    arriving.utm_term,
    arriving.utm_content,
    arriving.gclid,
    arriving.platform,
    arriving.device_type,
    arriving.browser,
    arriving.country,
    arriving.region,
    arriving.city,
    arriving.properties,
    coalesce(arriving.session_started_at, sessions.started_at) as session_started_at,
    cast(coalesce(arriving.session_started_at, sessions.started_at) as date) as session_day,
    case when arriving.session_id is null then 0 else 1 end as has_own_session,
    {{ computed_at() }} as computed_at
from {{ ref('int_source_events') }} as arriving
left join sessions on sessions.row_key = arriving.row_key
{% if some_days -%}
where {{ among_days("arriving.event_day", days) }}
{%- endif %}
