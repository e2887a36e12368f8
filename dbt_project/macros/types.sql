{#- The type of texts. Where an engine's own word for it means a short text or one of few alphabets, it is spelt out. -#}
{% macro redshift__type_string() -%}
    varchar(65535)
{%- endmacro %}

{% macro synapse__type_string() -%}
    nvarchar(4000)
{%- endmacro %}
