with conversions as (
    select event_id, event_name as conversion_event, user_id, occurred_at
    from "shop_models"."int_events"
    where event_day <= cast('2026-01-31' as date) and event_name in (cast('First Purchase' as nvarchar(4000)))
),
touches as (
    select
        session_id,
        user_id,
        started_at,
        coalesce(utm_source, 'google') as source,
        coalesce(utm_medium, case when gclid is not null then 'cpc' end, '(none)') as medium,
        coalesce(utm_campaign, '(none)') as campaign,
        case when gclid is not null then 1 else 0 end as has_gclid
    from "shop_models"."int_sessions"
    where utm_source is not null or gclid is not null
),
ordered as (
    select
        conversions.event_id,
        conversions.conversion_event,
        touches.source,
        touches.medium,
        touches.campaign,
        touches.has_gclid,
        row_number() over (
            partition by conversions.event_id, conversions.conversion_event
            order by touches.started_at, touches.session_id
        ) as from_first,
        row_number() over (
            partition by conversions.event_id, conversions.conversion_event
            order by touches.started_at desc, touches.session_id desc
        ) as from_last
    from conversions
    inner join touches on touches.user_id = conversions.user_id and touches.started_at <= conversions.occurred_at
),
touched as (
    select cast('first' as nvarchar(4000)) as touch, event_id, conversion_event, source, medium, campaign, has_gclid
    from ordered
    where from_first = 1
    union all
    select cast('last' as nvarchar(4000)) as touch, event_id, conversion_event, source, medium, campaign, has_gclid
    from ordered
    where from_last = 1
),
kinds as (
    select cast('first' as nvarchar(4000)) as touch
    union all
    select cast('last' as nvarchar(4000)) as touch
),
attributed as (
    select
        conversions.conversion_event,
        kinds.touch,
        coalesce(touched.source, '(direct)') as source,
        coalesce(touched.medium, '(none)') as medium,
        coalesce(touched.campaign, '(none)') as campaign,
        conversions.user_id,
        coalesce(touched.has_gclid, 0) as has_gclid
    from conversions
    cross join kinds
    left join touched
        on touched.event_id = conversions.event_id
        and touched.conversion_event = conversions.conversion_event
        and touched.touch = kinds.touch
),
counted as (
    select
        conversion_event,
        touch,
        source,
        medium,
        campaign,
        count(*) as conversions,
        count(distinct user_id) as users,
        cast(sum(has_gclid) as BIGINT) as paid_clicks
    from attributed
    group by conversion_event, touch, source, medium, campaign
)
select
    conversion_event,
    touch,
    source,
    medium,
    campaign,
    conversions,
    users,
    paid_clicks,
    case when sum(conversions) over (partition by conversion_event, touch) > 0 then cast(conversions as FLOAT) / sum(conversions) over (partition by conversion_event, touch) end as share
from counted
