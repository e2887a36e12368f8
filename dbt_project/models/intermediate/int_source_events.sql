{{ config(materialized="view") }}
{% if var("events_from") == "heap_connect" -%}
with events as (
    select * from {{ ref('stg_heap__pageviews') }}
    union all
    select * from {{ ref('stg_heap__events') }}
)

select
    {{ dbt.concat(["events.event_id", "'/'", "events.event_table_name"]) }} as row_key,
    events.event_id,
    events.user_id,
    sessions.session_id,
    sessions.started_at as session_started_at,
    events.event_name,
    events.occurred_at,
    cast(events.occurred_at as date) as event_day,
    events.arrived,
    events.page_url,
    events.page_title,
    events.referrer,
    events.utm_source,
    events.utm_medium,
    events.utm_campaign,
    events.utm_term,
    events.utm_content,
    {{ url_parameter("events.page_url", "gclid") }} as gclid,
    events.platform,
    events.device_type,
    events.browser,
    events.country,
    events.region,
    events.city,
    events.properties
from events
left join {{ ref('stg_heap__sessions') }} as sessions on sessions.session_id = events.session_id
where events.user_id is not null and events.occurred_at is not null
{%- else -%}
with told as (
    select
        seq,
        event_key,
        user_id,
        anonymous_id,
        event_name,
        occurred_at,
        event_day,
        properties,
        {{ json_places("properties", hub_event_places()) }} as in_event,
        {{ json_places("context", hub_context_places()) }} as in_context
    from {{ ref('stg_product_events') }}
    where event_type in ('track', 'page', 'screen') and suppressed is null
        and coalesce(user_id, anonymous_id) is not null
),

placed as (
    select
        told.*,
        coalesce({{ in_context("page", "url") }}, {{ in_event("url") }}, {{ in_event("page_url") }}) as page_url
    from told
),

-- Few addresses have parameters: in the others none is looked for.
addressed as (
    select placed.*, case when page_url like '%=%' then page_url end as page_url_with_parameters
    from placed
)

select
    addressed.seq as row_key,
    addressed.event_key as event_id,
    coalesce(addressed.user_id, merged.to_user_id, addressed.anonymous_id) as user_id,
    {{ no_text() }} as session_id,
    cast(null as {{ dbt.type_timestamp() }}) as session_started_at,
    addressed.event_name,
    addressed.occurred_at,
    addressed.event_day,
    addressed.seq as arrived,
    addressed.page_url,
    coalesce({{ in_context("page", "title") }}, {{ in_event("title") }}, {{ in_event("page_title") }}) as page_title,
    coalesce({{ in_context("page", "referrer") }}, {{ in_event("referrer") }}) as referrer,
    coalesce(
        {{ in_context("campaign", "source") }},
        {{ in_event("utm_source") }},
        {{ url_parameter("addressed.page_url_with_parameters", "utm_source") }}
    ) as utm_source,
    coalesce(
        {{ in_context("campaign", "medium") }},
        {{ in_event("utm_medium") }},
        {{ url_parameter("addressed.page_url_with_parameters", "utm_medium") }}
    ) as utm_medium,
    coalesce(
        {{ in_context("campaign", "name") }},
        {{ in_event("utm_campaign") }},
        {{ url_parameter("addressed.page_url_with_parameters", "utm_campaign") }}
    ) as utm_campaign,
    coalesce(
        {{ in_context("campaign", "term") }},
        {{ in_event("utm_term") }},
        {{ url_parameter("addressed.page_url_with_parameters", "utm_term") }}
    ) as utm_term,
    coalesce(
        {{ in_context("campaign", "content") }},
        {{ in_event("utm_content") }},
        {{ url_parameter("addressed.page_url_with_parameters", "utm_content") }}
    ) as utm_content,
    coalesce({{ in_event("gclid") }}, {{ url_parameter("addressed.page_url_with_parameters", "gclid") }}) as gclid,
    coalesce({{ in_context("os", "name") }}, {{ in_event("platform") }}) as platform,
    coalesce({{ in_context("device", "type") }}, {{ in_event("device_type") }}) as device_type,
    coalesce({{ in_context("browser", "name") }}, {{ in_event("browser") }}) as browser,
    coalesce({{ in_context("location", "country") }}, {{ in_event("country") }}) as country,
    coalesce({{ in_context("location", "region") }}, {{ in_event("region") }}) as region,
    coalesce({{ in_context("location", "city") }}, {{ in_event("city") }}) as city,
    addressed.properties
from addressed
left join {{ ref('stg_hub_merges') }} as merged
    on merged.from_user_id = addressed.anonymous_id and addressed.user_id is null
{%- endif %}
