{#- The first of the 30 days that end with `as_of`. -#}
{% macro window_start() -%}
    {{ days_before(as_of(), 29) }}
{%- endmacro %}

{#- The stage of a user at the end of a day; the first that applies, so that each user has exactly one.

    `active_days` and `sessions` are those of the 30 days that end with it. -#}
{% macro lifecycle_stage(day, first_day, last_day, active_days, sessions) -%}
    case
        when {{ days_between(last_day, day) }} > 30 then 'Churned'
        when {{ days_between(last_day, day) }} >= 14 then 'At Risk'
        when {{ active_days }} >= 15 then 'Power User'
        when {{ days_between(first_day, day) }} <= 7 then 'New'
        when {{ sessions }} >= 3 then 'Active'
        else 'Occasional'
    end
{%- endmacro %}

{#- What a destination is called in the name of a sync: what stands before the first slash. -#}
{% macro destination_of(sync_name) -%}
    {{ before_text(sync_name, "/") }}
{%- endmacro %}
