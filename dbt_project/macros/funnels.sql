{#- The steps of all funnels, for sessions and for users: funnel, scope, step_number, step_name. -#}
{% macro funnel_steps() -%}
    {%- set rows = [] -%}
    {%- for funnel in var('funnels') -%}
        {%- for scope in ['session', 'user'] -%}
            {%- for step in funnel.steps -%}
                {%- do rows.append((funnel.name, scope, loop.index, step)) -%}
            {%- endfor -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for funnel, scope, number, step in rows %}
    {% if not loop.first %}union all {% endif -%}
    select
        {{ text_literal(funnel) }} as funnel,
        {{ text_literal(scope) }} as scope,
        {{ number }} as step_number,
        {{ text_literal(step) }} as step_name
    {%- else %}
    select {{ no_text() }} as funnel, {{ no_text() }} as scope, 1 as step_number, {{ no_text() }} as step_name
    from {{ ref('int_events') }}
    where 1 = 0
    {%- endfor %}
{%- endmacro %}

{#- The columns of all that was reached, when nothing was. -#}
{% macro nothing_reached() -%}
    select
        {{ no_text() }} as funnel,
        {{ no_text() }} as scope,
        user_id as unit_id,
        step_number,
        occurred_at as entered_at,
        occurred_at as reached_at
    from {{ ref('int_funnel_events') }}
    where 1 = 0
{%- endmacro %}

{#- A short name of settings, which tells rows that were computed by others. -#}
{% macro definition_of(settings) -%}
    {{ text_literal(local_md5(tojson(settings, sort_keys=true))) }}
{%- endmacro %}

{#- Whether a moment is no longer ago than a funnel allows; a session has its own end. -#}
{% macro within_funnel_window(funnel, scope, moment) -%}
    {%- if funnel.window_hours and scope == 'user' -%}
    {#- BigQuery's macro gives another type than it takes, which it then refuses to compare. -#}
    occurred_at <= cast(
        {{ dbt.dateadd('second', (funnel.window_hours * 3600) | round | int, moment) }} as {{ dbt.type_timestamp() }}
    )
    {%- else -%}
    {{ moment }} is not null
    {%- endif -%}
{%- endmacro %}

{#- All rows of a session or user up to a row. -#}
{% macro so_far() -%}
    partition by unit_id order by occurred_at, arrived rows between unbounded preceding and current row
{%- endmacro %}

{#- The rows of an ordered funnel, a CTE for each step but the first. Each row has the newest entry that leads to it: so
    every entry is tried, and a conversion belongs to the last entry before it. -#}
{% macro ordered_chain(funnel, chain) -%}
{%- for number in range(2, funnel.steps | length + 1) %}
{{ chain }}_{{ number }} as (
    select
        unit_id,
        step_number,
        occurred_at,
        arrived,
        max(
            case when step_number = {{ number - 1 }} then {{ 'occurred_at' if number == 2 else 'entered_at' }} end
        ) over ({{ so_far() }}) as entered_at
    from {{ chain if number == 2 else chain ~ '_' ~ (number - 1) }}
    {%- if number > 2 %}
    where step_number >= {{ number - 1 }}
    {%- endif %}
),
{%- endfor %}
{%- endmacro %}

{% macro ordered_reached(funnel, scope, chain) -%}
{%- for number in range(1, funnel.steps | length + 1) %}
    {% if number > 1 %}union all {% endif -%}
    select
        {{ text_literal(funnel.name) }} as funnel,
        {{ text_literal(scope) }} as scope,
        unit_id,
        {{ number }} as step_number,
        {{ 'occurred_at' if number == 1 else 'entered_at' }} as entered_at,
        occurred_at as reached_at
    from {{ chain if number == 1 else chain ~ '_' ~ number }}
    where step_number = {{ number }}
    {%- if number > 1 %} and {{ within_funnel_window(funnel, scope, 'entered_at') }}{% endif %}
{%- endfor %}
{%- endmacro %}

{#- The rows of a funnel in any order: when each step was last there. -#}
{% macro unordered_chain(funnel, chain) %}
{{ chain }}_any as (
    select
        unit_id,
        step_number,
        occurred_at
        {%- for number in range(1, funnel.steps | length + 1) %},
        max(case when step_number = {{ number }} then occurred_at end) over ({{ so_far() }}) as step_{{ number }}_at
        {%- endfor %}
    from {{ chain }}
),
{%- endmacro %}

{% macro unordered_reached(funnel, scope, chain) -%}
{%- for number in range(1, funnel.steps | length + 1) %}
    {% if number > 1 %}union all {% endif -%}
    select
        {{ text_literal(funnel.name) }} as funnel,
        {{ text_literal(scope) }} as scope,
        unit_id,
        {{ number }} as step_number,
        step_1_at as entered_at,
        occurred_at as reached_at
    from {{ chain }}_any
    where step_number <= {{ number }}
    {%- for earlier in range(1, number + 1) %}
        and {{ within_funnel_window(funnel, scope, 'step_' ~ earlier ~ '_at') }}
    {%- endfor %}
{%- endfor %}
{%- endmacro %}

{#- What the marts read: the steps that were reached by the last day that counts, under one definition. -#}
{% macro funnel_progress(definition) -%}
    select funnel, scope, unit_id, step_number, entered_at, entered_day, reached_at
    from {{ ref('int_funnel_progress') }}
    where step_number > 0
        and reached_day <= {{ as_of() }}
        and definition = {{ definition }}
{%- endmacro %}
