{%- set tables = var("heap_event_tables") -%}
{% if tables -%}
{% for table, event_name in tables.items() %}
select * from (
{{ heap_events(table, event_name) }}
) as of_{{ loop.index }}
{% if not loop.last %}union all{% endif %}
{%- endfor %}
{%- else -%}
{{ heap_events("", "") }}
{%- endif %}
