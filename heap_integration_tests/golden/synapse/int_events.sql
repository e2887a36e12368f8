-- depends_on: "shop_models"."int_merged_users"
-- Sessions cross midnight: who was active just before one of the days goes on in the session of then.
with timeline as (
    select row_key, user_id, occurred_at, cast(null as DATETIME2(6)) as known_start
    from "shop_models"."int_source_events"
    where session_id is null
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
                when previous_at is null or occurred_at > cast(
    dateadd(
        minute,
        30,
        cast(previous_at as datetime2(6))
        )
 as DATETIME2(6)) then occurred_at
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
        arriving.session_id, concat(arriving.user_id, '/', cast(datediff(
        second,
        cast('1970-01-01' as DATETIME2(6)),
        sessions.started_at
        ) as nvarchar(4000)))
    ) as session_id,
    arriving.event_name,
    arriving.occurred_at,
    arriving.event_day,
    'heap_connect' as source,
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
    cast('2026-02-01 00:00:00' as DATETIME2(6)) as computed_at
from "shop_models"."int_source_events" as arriving
left join sessions on sessions.row_key = arriving.row_key
