{%- set kept = 100 -%}
with counted as (
    select
        conversion_event,
        path,
        max(steps) as steps,
        count(*) as sessions,
        count(distinct user_id) as users,
        sum(cast(seconds as {{ type_double() }})) / count(*) / 60 as average_minutes
    from {{ ref('int_conversion_paths') }}
    where steps > 0 and converted_day <= {{ as_of() }} and definition = {{ definition_of(conversion_events()) }}
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
        {{ ratio('sessions', 'sum(sessions) over (partition by conversion_event)') }} as share,
        row_number() over (partition by conversion_event order by sessions desc, path) as path_rank
    from counted
)

select
    {{ hashed(['conversion_event', 'path']) }} as path_id,
    conversion_event,
    path_rank,
    path,
    steps,
    sessions,
    users,
    share,
    average_minutes
from compared
where path_rank <= {{ kept }}
