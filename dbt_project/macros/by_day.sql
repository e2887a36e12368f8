{#- How a model that is kept by day takes its new days: in place of what it had of them. -#}
{% macro day_strategy() -%}
    {{ return("insert_overwrite" if target.type == "bigquery" else "delete+insert") }}
{%- endmacro %}

{% macro day_partition(column) -%}
    {{ return({"field": column, "data_type": "date"} if target.type == "bigquery" else none) }}
{%- endmacro %}

{#- Say whether days were asked for, and which: a condition on a column. -#}
{% macro days_asked() -%}
    {{ return(var("from_day") != "" and var("to_day") != "") }}
{%- endmacro %}

{% macro among_asked(column) -%}
    {{ column }} between cast('{{ var("from_day") }}' as date) and cast('{{ var("to_day") }}' as date)
{%- endmacro %}

{#- The days of another model that were computed since this model's. -#}
{% macro newer_days(other, other_day, day) -%}
    select theirs.{{ other_day }} as {{ day }}
    from (
        select {{ other_day }}, max(computed_at) as computed_at from {{ other }} group by {{ other_day }}
    ) as theirs
    left join (
        select {{ day }}, max(computed_at) as computed_at from {{ this }} group by {{ day }}
    ) as ours on ours.{{ day }} = theirs.{{ other_day }}
    where ours.computed_at is null or ours.computed_at < theirs.computed_at
{%- endmacro %}

{#- The days that a query finds, or those asked for and `more` after them, as a list. A list of days in a statement is
    something by which every engine skips the days that it needn't read; a query in it is not. -#}
{% macro days_found(sql, more=0) -%}
    {%- set days = [] -%}
    {%- if days_asked() -%}
        {%- set first = modules.datetime.date.fromisoformat(var("from_day")) -%}
        {%- set last = modules.datetime.date.fromisoformat(var("to_day")) -%}
        {%- for offset in range((last - first).days + 1 + more) -%}
            {%- do days.append(first + modules.datetime.timedelta(days=offset)) -%}
        {%- endfor -%}
    {%- elif execute -%}
        {%- for day in run_query(sql).columns[0].values() -%}
            {%- set found = modules.datetime.date.fromisoformat((day | string)[:10]) -%}
            {%- if found not in days %}{% do days.append(found) %}{% endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(days | sort) }}
{%- endmacro %}

{#- The days right before those of a list that are not in it themselves. -#}
{% macro days_ahead(days) -%}
    {%- set ahead = [] -%}
    {%- for day in days -%}
        {%- set before = day - modules.datetime.timedelta(days=1) -%}
        {%- if before not in days %}{% do ahead.append(before) %}{% endif -%}
    {%- endfor -%}
    {{ return(ahead) }}
{%- endmacro %}

{% macro among_days(column, days) -%}
    {%- if days -%}
    {{ column }} in ({% for day in days %}cast('{{ day }}' as date){% if not loop.last %}, {% endif %}{% endfor %})
    {%- else -%}
    1 = 0
    {%- endif -%}
{%- endmacro %}
