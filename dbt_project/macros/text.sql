{#- One short name for the values of several columns. -#}
{% macro hashed(columns) -%}
    {%- set texts = [] -%}
    {%- for column in columns -%}
        {%- do texts.append("coalesce(cast(" ~ column ~ " as " ~ dbt.type_string() ~ "), '')") -%}
        {%- if not loop.last %}{% do texts.append("'|'") %}{% endif -%}
    {%- endfor -%}
    {{ dbt.hash(dbt.concat(texts) if texts | length > 1 else texts[0]) }}
{%- endmacro %}

{#- A text; the type that every id of the models has. -#}
{% macro as_text(column) -%}
    cast({{ column }} as {{ dbt.type_string() }})
{%- endmacro %}

{#- A null of type text. -#}
{% macro no_text() -%}
    cast(null as {{ dbt.type_string() }})
{%- endmacro %}

{#- A column whose name is a word of SQL. -#}
{% macro named(column) -%}
    {{ adapter.dispatch("named", "heap_integration")(column) }}
{%- endmacro %}

{% macro default__named(column) -%}
    {{ adapter.quote(column) }}
{%- endmacro %}

{#- Quoted, it would be another name than the same in capitals. -#}
{% macro snowflake__named(column) -%}
    {{ column }}
{%- endmacro %}

{#- The value of a parameter of an address, as it stands there; null where the address has none of that name. -#}
{% macro url_parameter(url, name) -%}
    {%- set query = dbt.concat(["'&'", "replace(" ~ url ~ ", '?', '&')"]) -%}
    case when {{ url }} like '%{{ name }}=%'
        then nullif({{ before_text(before_text(after_text(query, "&" ~ name ~ "="), "&"), "#") }}, '') end
{%- endmacro %}

{#- What stands after the first place of a text; empty where there is no such place. -#}
{% macro after_text(text, mark) -%}
    {{ adapter.dispatch("after_text", "heap_integration")(text, mark) }}
{%- endmacro %}

{% macro default__after_text(text, mark) -%}
    {{ dbt.split_part(text, "'" ~ mark ~ "'", 2) }}
{%- endmacro %}

{% macro fabric__after_text(text, mark) -%}
    case when charindex('{{ mark }}', {{ text }}) > 0 then substring({{ text }}, charindex('{{ mark }}', {{ text }}) + {{ mark | length }}, 8000) else '' end
{%- endmacro %}

{#- What stands before the first place of a text; all of it where there is no such place. -#}
{% macro before_text(text, mark) -%}
    {{ adapter.dispatch("before_text", "heap_integration")(text, mark) }}
{%- endmacro %}

{% macro default__before_text(text, mark) -%}
    {{ dbt.split_part(text, "'" ~ mark ~ "'", 1) }}
{%- endmacro %}

{% macro fabric__before_text(text, mark) -%}
    left({{ text }}, charindex('{{ mark }}', {{ dbt.concat([text, "'" ~ mark ~ "'"]) }}) - 1)
{%- endmacro %}
