{{ config(
    materialized="table" if target.type == "bigquery" else "incremental",
    incremental_strategy="delete+insert",
    unique_key=["scope", "unit_id"],
) }}
{%- set definition = definition_of(var('funnels')) %}
{%- set units = {'session': 'session_id', 'user': 'user_id'} %}
{%- set chains = [] %}
{%- for funnel in var('funnels') -%}
    {%- for scope in ['session', 'user'] -%}
        {%- do chains.append((funnel, scope, scope ~ '_' ~ loop.index ~ '_' ~ (chains | length))) -%}
    {%- endfor -%}
{%- endfor %}
with
{% if is_incremental() -%}
changed as (
    select session_id, user_id, event_day
    from {{ ref('int_funnel_events') }}
    where computed_at > coalesce(
        (select max(computed_at) from {{ this }}), cast('1970-01-01' as {{ dbt.type_timestamp() }})
    )
),

-- Who was there before may have been merged with somebody or deleted since.
known as (
    select distinct scope, unit_id
    from {{ this }}
    where reached_day in (select event_day from changed)
        or (scope = 'session' and unit_id in (select session_id from changed))
        or (scope = 'user' and unit_id in (select user_id from changed))
),
{%- endif %}

{% for scope, unit in units.items() -%}
{%- if is_incremental() -%}
{{ scope }}s as (
    select {{ unit }} as unit_id from changed
    union
    select unit_id from known where scope = '{{ scope }}'
),
{%- endif %}
{% endfor %}

{%- for funnel, scope, chain in chains %}
{{ chain }} as (
    select {{ units[scope] }} as unit_id, step_number, occurred_at, arrived
    from {{ ref('int_funnel_events') }}
    where funnel = {{ text_literal(funnel.name) }}
        and definition = {{ definition }}
        and {{ units[scope] }} is not null
    {%- if is_incremental() %}
        and {{ units[scope] }} in (select unit_id from {{ scope }}s)
    {%- endif %}
),
{{ ordered_chain(funnel, chain) if funnel.ordered else unordered_chain(funnel, chain) }}
{%- endfor %}

reached as (
    {%- for funnel, scope, chain in chains %}
    {%- if not loop.first %}
    union all
    {%- endif %}
    {{- ordered_reached(funnel, scope, chain) if funnel.ordered else unordered_reached(funnel, scope, chain) }}
    {%- else %}
    {{ nothing_reached() }}
    {%- endfor %}
)

select
    funnel,
    scope,
    unit_id,
    step_number,
    entered_at,
    cast(entered_at as date) as entered_day,
    reached_at,
    cast(reached_at as date) as reached_day,
    {{ definition }} as definition,
    {{ computed_at() }} as computed_at
from reached
{% if is_incremental() -%}
-- Rows that stand in place of what a unit had, should it have nothing left.
union all
select
    {{ no_text() }} as funnel,
    scope,
    unit_id,
    0 as step_number,
    cast(null as {{ dbt.type_timestamp() }}) as entered_at,
    cast(null as date) as entered_day,
    cast(null as {{ dbt.type_timestamp() }}) as reached_at,
    cast(null as date) as reached_day,
    {{ definition }} as definition,
    {{ computed_at() }} as computed_at
from known
{%- endif %}
