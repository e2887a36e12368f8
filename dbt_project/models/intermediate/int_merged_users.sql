{% if var("events_from") == "heap_connect" -%}
select from_user_id, to_user_id from {{ ref('stg_heap__user_migrations') }}
{%- else -%}
select from_user_id, to_user_id from {{ ref('stg_hub_merges') }}
{%- endif %}
