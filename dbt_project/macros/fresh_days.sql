{#- The days of int_events by one of its columns; for an incremental model those that were computed since its own newest
    row of the same definition. A model keeps a row without contents for each, so that a day on which nothing is left
    replaces what it had, and isn't looked at again. -#}
{% macro fresh_days(day, definition) -%}
    select {{ day }}
    from {{ ref('int_events') }}
    group by {{ day }}
    {%- if is_incremental() %}
    having max(computed_at) > coalesce(
        (select max(computed_at) from {{ this }} where definition = {{ definition }}),
        cast('1970-01-01' as {{ dbt.type_timestamp() }})
    )
    {%- endif %}
{%- endmacro %}
