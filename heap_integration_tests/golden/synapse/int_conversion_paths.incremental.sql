with days as (
    select session_day
    from "shop_models"."int_events"
    group by session_day
    having max(computed_at) > coalesce(
        (select max(computed_at) from "shop_models"."int_conversion_paths" where definition = cast('0a0d22562afb320d288a7d1d06132260' as nvarchar(4000))),
        cast('1970-01-01' as DATETIME2(6))
    )
),
conversions as (
    select session_id, session_day, user_id, conversion_event, occurred_at, arrived
    from (
        select
            session_id,
            session_day,
            user_id,
            event_name as conversion_event,
            occurred_at,
            arrived,
            row_number() over (partition by session_id, event_name order by occurred_at, arrived) as nth
        from "shop_models"."int_events"
        where session_id is not null
            and event_name in (cast('First Purchase' as nvarchar(4000)))
            and session_day in (select session_day from days)
    ) as occurrences
    where nth = 1
),
before as (
    select
        conversions.session_id,
        conversions.session_day,
        conversions.user_id,
        conversions.conversion_event,
        conversions.occurred_at as converted_at,
        events.event_name,
        events.occurred_at,
        events.arrived,
        lag(events.event_name) over (
            partition by conversions.session_id, conversions.conversion_event
            order by events.occurred_at, events.arrived
        ) as event_before
    from conversions
    inner join "shop_models"."int_events" as events
        on events.session_id = conversions.session_id
        and (
            events.occurred_at < conversions.occurred_at
            or (events.occurred_at = conversions.occurred_at and events.arrived <= conversions.arrived)
        )
    where events.session_day in (select session_day from days)
),
steps as (
    select
        session_id,
        session_day,
        user_id,
        conversion_event,
        converted_at,
        event_name,
        occurred_at,
        row_number() over (
            partition by session_id, conversion_event order by occurred_at desc, arrived desc
        ) as from_end
    from before
    where event_before is null or event_before <> event_name
),
placed as (
    select
        session_id,
        conversion_event,
        min(session_day) as session_day,
        min(user_id) as user_id,
        min(converted_at) as converted_at,
        min(occurred_at) as began_at,
        count(*) as steps,
        max(case when from_end = 12 then event_name end) as step_12,
        max(case when from_end = 11 then event_name end) as step_11,
        max(case when from_end = 10 then event_name end) as step_10,
        max(case when from_end = 9 then event_name end) as step_9,
        max(case when from_end = 8 then event_name end) as step_8,
        max(case when from_end = 7 then event_name end) as step_7,
        max(case when from_end = 6 then event_name end) as step_6,
        max(case when from_end = 5 then event_name end) as step_5,
        max(case when from_end = 4 then event_name end) as step_4,
        max(case when from_end = 3 then event_name end) as step_3,
        max(case when from_end = 2 then event_name end) as step_2,
        max(case when from_end = 1 then event_name end) as step_1
    from steps
    group by session_id, conversion_event
)
select
    session_id,
    conversion_event,
    user_id,
    session_day,
    converted_at,
    cast(converted_at as date) as converted_day,
    steps,
    datediff(
        second,
        began_at,
        converted_at
        ) as seconds,
    concat(case when steps > 12 then '... > ' else '' end, case when step_12 is null then '' else concat(step_12, ' > ') end, case when step_11 is null then '' else concat(step_11, ' > ') end, case when step_10 is null then '' else concat(step_10, ' > ') end, case when step_9 is null then '' else concat(step_9, ' > ') end, case when step_8 is null then '' else concat(step_8, ' > ') end, case when step_7 is null then '' else concat(step_7, ' > ') end, case when step_6 is null then '' else concat(step_6, ' > ') end, case when step_5 is null then '' else concat(step_5, ' > ') end, case when step_4 is null then '' else concat(step_4, ' > ') end, case when step_3 is null then '' else concat(step_3, ' > ') end, case when step_2 is null then '' else concat(step_2, ' > ') end, step_1) as path,
    cast('0a0d22562afb320d288a7d1d06132260' as nvarchar(4000)) as definition,
    cast('2026-02-01 00:00:00' as DATETIME2(6)) as computed_at
from placed
union all
select
    cast(null as nvarchar(4000)) as session_id,
    cast(null as nvarchar(4000)) as conversion_event,
    cast(null as nvarchar(4000)) as user_id,
    session_day,
    cast(null as DATETIME2(6)) as converted_at,
    cast(null as date) as converted_day,
    0 as steps,
    0 as seconds,
    cast(null as nvarchar(4000)) as path,
    cast('0a0d22562afb320d288a7d1d06132260' as nvarchar(4000)) as definition,
    cast('2026-02-01 00:00:00' as DATETIME2(6)) as computed_at
from days
