{#- The columns of Heap's events that have a place of their own in the models; the others are properties. -#}
{% macro heap_columns() -%}
    {{ return([
        "event_id", "user_id", "session_id", "time", "type", "library", "platform", "device_type", "browser", "country",
        "region", "city", "ip", "referrer", "domain", "path", "query", "hash", "title", "landing_page",
        "landing_page_query", "landing_page_hash", "search_keyword", "utm_source", "utm_medium", "utm_campaign",
        "utm_term", "utm_content", "session_time", "heap_previous_page", "event_table_name",
    ]) }}
{%- endmacro %}

{#- Say whether the warehouse has a table of Heap's. -#}
{% macro has_heap_table(name) -%}
    {{ return(name in var("heap_tables")) }}
{%- endmacro %}

{#- One of Heap's tables with exactly the columns that are asked for, as text but for those of `kinds`; a column that the
    warehouse lacks is null, a table that it lacks is empty. -#}
{% macro heap_table(name, columns, kinds={}, properties=none) -%}
    {%- set own = ["users", "sessions", "pageviews", "all_events", "user_migrations"] -%}
    {%- set relation = source("heap_connect", name if name in own else "events").incorporate(path={"identifier": name}) -%}
    {%- set known = var("heap_tables").get(name, []) -%}
    select
    {%- for column in columns %}
        {%- set kind = kinds.get(column, dbt.type_string()) %}
        {% if column not in known -%}
            cast(null as {{ kind }})
        {%- elif kind == dbt.type_timestamp() -%}
            {{ utc(named(column)) }}
        {%- else -%}
            cast({{ named(column) }} as {{ kind }})
        {%- endif %} as {{ named(column) }}{{ "," if not loop.last or properties is not none }}
    {%- endfor %}
    {%- if properties is not none %}
        {{ json_of_columns(properties | select("in", known) | list) }} as properties
    {%- endif %}
    {% if name in var("heap_tables") -%}
    from {{ relation }}
    {%- else -%}
    from (select 1 as nothing) as nothing
    where 1 = 0
    {%- endif %}
{%- endmacro %}

{#- The one row of each key that came last; `order_by` tells which that is. -#}
{% macro newest_of(relation, key, order_by) -%}
    (
        select *, row_number() over (partition by {{ key }} order by {{ order_by }}) as nth
        from {{ relation }}
    )
{%- endmacro %}

{#- The user whom Heap has made of another; as it stands where Heap has done so itself. -#}
{% macro resolved_user(own, migrated) -%}
    {%- if var("migrations_applied") -%} {{ own }} {%- else -%} coalesce({{ migrated }}, {{ own }}) {%- endif -%}
{%- endmacro %}

{#- The events of one of Heap's tables, each once, of the user that Heap has made of theirs. -#}
{% macro heap_events(name, event_name) -%}
    {%- set columns = [
        "event_id", "user_id", "session_id", "time", "library", "platform", "device_type", "browser", "country",
        "region", "city", "referrer", "domain", "path", "query", "title", "utm_source", "utm_medium", "utm_campaign",
        "utm_term", "utm_content", "_hub_dump",
    ] -%}
    {%- set properties = var("heap_tables").get(name, []) | reject("in", heap_columns() + ["_hub_dump"]) | list -%}
    select
        event_id,
        '{{ name }}' as event_table_name,
        '{{ dbt.escape_single_quotes(event_name) }}' as event_name,
        resolved_user_id as user_id,
        session_id,
        {{ named("time") }} as occurred_at,
        coalesce({{ named("_hub_dump") }}, 0) as arrived,
        case when {{ named("domain") }} is null then null else {{ dbt.concat([
            named("domain"), "coalesce(" ~ named("path") ~ ", '')",
            "case when " ~ named("query") ~ " is null or " ~ named("query") ~ " = '' then '' when " ~ named("query")
            ~ " like '?%' then " ~ named("query") ~ " else " ~ dbt.concat(["'?'", named("query")]) ~ " end",
        ]) }} end as page_url,
        title as page_title,
        referrer,
        utm_source,
        utm_medium,
        utm_campaign,
        utm_term,
        utm_content,
        platform,
        device_type,
        browser,
        country,
        region,
        city,
        properties
    from (
        select
            told.*,
            {{ resolved_user("told.user_id", "migrations.to_user_id") }} as resolved_user_id,
            row_number() over (
                partition by told.event_id order by coalesce(told.{{ named("_hub_dump") }}, 0) desc, told.{{ named("time") }}
            ) as nth
        from (
            {{ heap_table(name, columns, {"time": dbt.type_timestamp(), "_hub_dump": dbt.type_bigint()}, properties) }}
        ) as told
        left join {{ ref('stg_heap__user_migrations') }} as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
{%- endmacro %}
