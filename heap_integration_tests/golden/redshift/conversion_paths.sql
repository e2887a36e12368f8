with counted as (
    select
        conversion_event,
        path,
        max(steps) as steps,
        count(*) as sessions,
        count(distinct user_id) as users,
        sum(cast(seconds as float)) / count(*) / 60 as average_minutes
    from "heap"."shop_models"."int_conversion_paths"
    where steps > 0 and converted_day <= cast('2026-01-31' as date) and definition = cast('0a0d22562afb320d288a7d1d06132260' as varchar(65535))
    group by conversion_event, path
),
compared as (
    select
        conversion_event,
        path,
        steps,
        sessions,
        users,
        average_minutes,
        case when sum(sessions) over (partition by conversion_event) > 0 then cast(sessions as float) / sum(sessions) over (partition by conversion_event) end as share,
        row_number() over (partition by conversion_event order by sessions desc, path) as path_rank
    from counted
)
select
    md5(cast(coalesce(cast(conversion_event as varchar(65535)), '') || '|' || coalesce(cast(path as varchar(65535)), '') as TEXT)) as path_id,
    conversion_event,
    path_rank,
    path,
    steps,
    sessions,
    users,
    share,
    average_minutes
from compared
where path_rank <= 100
