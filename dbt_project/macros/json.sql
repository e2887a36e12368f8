{#- A property of a JSON object as text; null where it isn't there. -#}
{% macro json_text(column, name) -%}
    {{ json_path_text(column, [name]) }}
{%- endmacro %}

{#- What lies at a path of a JSON object, as text; null where there is nothing. -#}
{% macro json_path_text(column, path) -%}
    {{ adapter.dispatch("json_path_text", "heap_integration")(column, path) }}
{%- endmacro %}

{#- A path in the form that most engines share: every name in double quotes. -#}
{% macro json_path(path) -%}
    ${% for name in path %}."{{ name | replace("\\", "\\\\") | replace('"', '\\"') | replace("'", "''") }}"{% endfor %}
{%- endmacro %}

{% macro default__json_path_text(column, path) -%}
    json_value({{ column }}, '{{ json_path(path) }}')
{%- endmacro %}

{% macro duckdb__json_path_text(column, path) -%}
    json_extract_string({{ column }}, '{{ json_path(path) }}')
{%- endmacro %}

{% macro postgres__json_path_text(column, path) -%}
    json_extract_path_text(cast({{ column }} as json){% for name in path %}, '{{ dbt.escape_single_quotes(name) }}'{% endfor %})
{%- endmacro %}

{% macro redshift__json_path_text(column, path) -%}
    nullif(json_extract_path_text({{ column }}{% for name in path %}, '{{ dbt.escape_single_quotes(name) }}'{% endfor %}, true), '')
{%- endmacro %}

{% macro snowflake__json_path_text(column, path) -%}
    cast(get_path(try_parse_json({{ column }}), '{% for name in path %}["{{ name | replace('"', '\\"') | replace("'", "''") }}"]{% endfor %}') as varchar)
{%- endmacro %}

{#- Several places of one JSON object, at most two names deep: first as a column, then each place of it. DuckDB then reads
    the text once. -#}
{% macro json_places(column, paths) -%}
    {{ adapter.dispatch("json_places", "heap_integration")(column, paths) }}
{%- endmacro %}

{% macro default__json_places(column, paths) -%}
    {{ column }}
{%- endmacro %}

{% macro duckdb__json_places(column, paths) -%}
    {%- set form = {} -%}
    {%- for path in paths -%}
        {%- if path | length == 1 -%}
            {%- do form.update({path[0]: "VARCHAR"}) -%}
        {%- else -%}
            {%- do form.setdefault(path[0], {}).update({path[1]: "VARCHAR"}) -%}
        {%- endif -%}
    {%- endfor -%}
    case when {{ column }} <> '{}' then json_transform({{ column }}, '{{ tojson(form) }}') end
{%- endmacro %}

{% macro json_place(places, paths, path) -%}
    {{ adapter.dispatch("json_place", "heap_integration")(places, paths, path) }}
{%- endmacro %}

{% macro default__json_place(places, paths, path) -%}
    {{ json_path_text(places, path) }}
{%- endmacro %}

{% macro duckdb__json_place(places, paths, path) -%}
    {{ places }}{% for name in path %}."{{ name }}"{% endfor %}
{%- endmacro %}

{#- A JSON object of columns, each a text; what is null is left out. `columns` are names as in the warehouse. -#}
{% macro json_of_columns(columns) -%}
    {%- if columns -%}
    {{ adapter.dispatch("json_of_columns", "heap_integration")(columns) }}
    {%- else -%}
    '{}'
    {%- endif -%}
{%- endmacro %}

{#- Written by hand where an engine has no function that says it for any columns. -#}
{% macro default__json_of_columns(columns) -%}
    {%- set parts = [] -%}
    {%- for column in columns -%}
        {%- set text = "cast(" ~ adapter.quote(column) ~ " as " ~ dbt.type_string() ~ ")" -%}
        {%- set escaped = namespace(text=text) -%}
        {#- Engines differ in what a backslash in a literal is: it and what it escapes are written by their codes. -#}
        {%- for code, shown in [(92, character(92)), (34, character(34)), (10, "'n'"), (13, "'r'"), (9, "'t'")] -%}
            {%- set escaped.text = "replace(" ~ escaped.text ~ ", " ~ character(code) ~ ", " ~ dbt.concat([character(92), shown]) ~ ")" -%}
        {%- endfor -%}
        {%- do parts.append("case when " ~ adapter.quote(column) ~ " is null then '' else " ~ dbt.concat(["',\"" ~ column ~ "\":\"'", escaped.text, "'\"'"]) ~ " end") -%}
    {%- endfor -%}
    {%- set joined = dbt.concat(parts) if parts | length > 1 else parts[0] -%}
    {{ dbt.concat(["'{'", "substring(" ~ joined ~ ", 2, 65535)", "'}'"]) }}
{%- endmacro %}

{% macro character(code) -%}
    {{ adapter.dispatch("character", "heap_integration")(code) }}
{%- endmacro %}

{% macro default__character(code) -%}chr({{ code }}){%- endmacro %}

{% macro fabric__character(code) -%}char({{ code }}){%- endmacro %}

{% macro duckdb__json_of_columns(columns) -%}
    json_merge_patch('{}', json_object({% for column in columns %}'{{ column }}', cast({{ adapter.quote(column) }} as varchar){% if not loop.last %}, {% endif %}{% endfor %}))::varchar
{%- endmacro %}

{% macro postgres__json_of_columns(columns) -%}
    cast(json_strip_nulls(json_build_object({% for column in columns %}'{{ column }}', cast({{ adapter.quote(column) }} as text){% if not loop.last %}, {% endif %}{% endfor %})) as text)
{%- endmacro %}

{% macro redshift__json_of_columns(columns) -%}
    {{ default__json_of_columns(columns) }}
{%- endmacro %}

{% macro bigquery__json_of_columns(columns) -%}
    to_json_string(json_strip_nulls(to_json(struct({% for column in columns %}cast({{ adapter.quote(column) }} as string) as {{ adapter.quote(column) }}{% if not loop.last %}, {% endif %}{% endfor %}))))
{%- endmacro %}

{% macro snowflake__json_of_columns(columns) -%}
    to_json(object_construct({% for column in columns %}'{{ column }}', cast({{ column }} as varchar){% if not loop.last %}, {% endif %}{% endfor %}))
{%- endmacro %}
