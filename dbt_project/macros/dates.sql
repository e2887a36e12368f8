{#- The last UTC day that counts. -#}
{% macro as_of() -%}
    cast('{{ var("as_of") or run_started_at.strftime("%Y-%m-%d") }}' as date)
{%- endmacro %}

{#- When this run began (UTC). -#}
{% macro computed_at() -%}
    cast('{{ var("computed_at") or run_started_at.strftime("%Y-%m-%d %H:%M:%S.%f") }}' as {{ dbt.type_timestamp() }})
{%- endmacro %}

{#- Whole days from one day to another. -#}
{% macro days_between(earlier, later) -%}
    {{ adapter.dispatch("days_between", "heap_integration")(earlier, later) }}
{%- endmacro %}

{% macro default__days_between(earlier, later) -%}
    {{ dbt.datediff(earlier, later, "day") }}
{%- endmacro %}

{#- dbt's own goes by moments and intervals, which takes DuckDB many times as long. -#}
{% macro duckdb__days_between(earlier, later) -%}
    (cast({{ later }} as date) - cast({{ earlier }} as date))
{%- endmacro %}

{#- The day that many days before another. -#}
{% macro days_before(day, days) -%}
    {{ adapter.dispatch("days_before", "heap_integration")(day, days) }}
{%- endmacro %}

{% macro default__days_before(day, days) -%}
    cast({{ dbt.dateadd("day", -days, day) }} as date)
{%- endmacro %}

{% macro duckdb__days_before(day, days) -%}
    (cast({{ day }} as date) - ({{ days }}))
{%- endmacro %}

{#- A moment that many minutes after another; a cast, because BigQuery's sums of moments have another type than these. -#}
{% macro minutes_after(moment, minutes) -%}
    cast({{ dbt.dateadd("minute", minutes, moment) }} as {{ dbt.type_timestamp() }})
{%- endmacro %}

{#- A moment as UTC without a zone. -#}
{% macro utc(column) -%}
    {{ adapter.dispatch("utc", "heap_integration")(column) }}
{%- endmacro %}

{% macro default__utc(column) -%}
    cast({{ column }} as {{ dbt.type_timestamp() }})
{%- endmacro %}

{#- What has a zone is told in the session's, which is UTC. -#}
{% macro snowflake__utc(column) -%}
    cast({{ column }} as timestamp_ntz)
{%- endmacro %}

{#- Seconds since 1970 as text. -#}
{% macro epoch_text(moment) -%}
    {{ adapter.dispatch("epoch_text", "heap_integration")(moment) }}
{%- endmacro %}

{% macro default__epoch_text(moment) -%}
    cast({{ dbt.datediff("cast('1970-01-01' as " ~ dbt.type_timestamp() ~ ")", moment, "second") }} as {{ dbt.type_string() }})
{%- endmacro %}

{% macro duckdb__epoch_text(moment) -%}
    cast(epoch_ms({{ moment }}) // 1000 as varchar)
{%- endmacro %}

{% macro postgres__epoch_text(moment) -%}
    cast(cast(floor(extract(epoch from {{ moment }})) as bigint) as text)
{%- endmacro %}
