{#- Weeks begin on Monday and are counted from one: the engines' own weeks begin on different days. -#}
{%- set monday = "cast('1970-01-05' as date)" -%}
{%- set january = "cast('1970-01-01' as date)" -%}
{%- set longest = {'week': 52, 'month': 24} -%}
with periods as (
    select
        user_id,
        day,
        cast(floor({{ days_between(monday, 'day') }} / 7.0) as {{ dbt.type_int() }}) as week_number,
        {{ dbt.datediff(january, 'day', 'month') }} as month_number
    from {{ ref('int_user_days') }}
    where day <= {{ as_of() }}
),

numbers as (
    select
        user_id,
        {{ text_literal('week') }} as period,
        week_number as period_number,
        min(week_number) over (partition by user_id) as cohort_number
    from (select distinct user_id, week_number from periods) as weeks
    union all
    select
        user_id,
        {{ text_literal('month') }} as period,
        month_number as period_number,
        min(month_number) over (partition by user_id) as cohort_number
    from (select distinct user_id, month_number from periods) as months
),

retained as (
    select period, cohort_number, period_number, count(*) as retained_users
    from numbers
    group by period, cohort_number, period_number
),

present as (
    select
        {{ text_literal('week') }} as period,
        cast(floor({{ days_between(monday, as_of()) }} / 7.0) as {{ dbt.type_int() }}) as period_number
    union all
    select {{ text_literal('month') }} as period, {{ dbt.datediff(january, as_of(), 'month') }} as period_number
),

offsets as (
    {%- for number in range(longest.week + 1) %}
    {% if not loop.first %}union all {% endif -%}
    select {{ number }} as periods_since
    {%- endfor %}
),

counted as (
    select
        cohorts.period,
        cohorts.cohort_number,
        offsets.periods_since,
        present.period_number as present_number,
        cohorts.retained_users as cohort_users,
        coalesce(retained.retained_users, 0) as retained_users
    from retained as cohorts
    inner join present on present.period = cohorts.period
    inner join offsets
        on cohorts.cohort_number + offsets.periods_since <= present.period_number
        and (cohorts.period = 'week' or offsets.periods_since <= {{ longest.month }})
    left join retained
        on retained.period = cohorts.period
        and retained.cohort_number = cohorts.cohort_number
        and retained.period_number = cohorts.cohort_number + offsets.periods_since
    where cohorts.period_number = cohorts.cohort_number
)

select
    period,
    case
        when period = 'week' then cast({{ dbt.dateadd('day', '(7 * cohort_number)', monday) }} as date)
        else cast({{ dbt.dateadd('month', 'cohort_number', january) }} as date)
    end as cohort,
    periods_since,
    cohort_users,
    retained_users,
    {{ ratio('retained_users', 'cohort_users') }} as retention_rate,
    {{ as_boolean('cohort_number + periods_since < present_number') }} as complete
from counted
