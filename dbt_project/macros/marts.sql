{#- A text as SQL, whatever quotes it holds. -#}
{% macro text_literal(text) -%}
    cast('{{ dbt.escape_single_quotes(text | string) }}' as {{ dbt.type_string() }})
{%- endmacro %}

{#- A part of a whole as a fraction; null where there is no whole. Integers would divide to integers elsewhere. -#}
{% macro ratio(part, whole) -%}
    case when {{ whole }} > 0 then cast({{ part }} as {{ type_double() }}) / {{ whole }} end
{%- endmacro %}

{#- A number with digits enough for a sum; DuckDB's own float has seven. -#}
{% macro type_double() -%}
    {{ 'double' if target.type == 'duckdb' else dbt.type_float() }}
{%- endmacro %}

{#- A score as a whole number; a half goes up in every engine, however many digits it divides with. -#}
{% macro rounded(number) -%}
    cast(floor({{ number }} + 0.500001) as {{ dbt.type_int() }})
{%- endmacro %}

{#- Whether an event is the use of a feature. -#}
{% macro is_feature(column) -%}
    left({{ column }}, {{ var('feature_prefix') | length }}) = {{ text_literal(var('feature_prefix')) }}
{%- endmacro %}

{#- A condition as a column: T-SQL has no boolean expressions to select. -#}
{% macro as_boolean(condition) -%}
    cast(case when {{ condition }} then 1 else 0 end as {{ dbt.type_boolean() }})
{%- endmacro %}

{#- A property of an event by its name: a column that all events have, else a value of their JSON. -#}
{% macro event_property(name, events='events') -%}
    {%- set columns = [
        'page_url', 'page_title', 'referrer', 'utm_source', 'utm_medium', 'utm_campaign', 'utm_term', 'utm_content',
        'gclid', 'platform', 'device_type', 'browser', 'country', 'region', 'city', 'source',
    ] -%}
    {{ events ~ '.' ~ name if name in columns else json_text(events ~ '.properties', name) }}
{%- endmacro %}

{#- The events that are conversions: those that are named, else the last step of each funnel. -#}
{% macro conversion_events() -%}
    {%- set named = var('conversion_events') or (var('funnels') | map(attribute='steps') | map('last') | list) -%}
    {{ return(named | unique(case_sensitive=true) | list) }}
{%- endmacro %}

{#- Whether an event is a conversion; nothing is one where there is neither a name nor a funnel. -#}
{% macro is_conversion(column) -%}
    {%- set literals = [] -%}
    {%- for name in conversion_events() -%}{%- do literals.append(text_literal(name)) -%}{%- endfor -%}
    {%- if literals -%}{{ column }} in ({{ literals | join(', ') }}){%- else -%}1 = 0{%- endif -%}
{%- endmacro %}
