with told as (
    {{ heap_table(
        "sessions",
        [
            "event_id", "user_id", "session_id", "time", "library", "platform", "device_type", "browser", "country",
            "region", "city", "referrer", "landing_page", "landing_page_query", "utm_source", "utm_medium",
            "utm_campaign", "utm_term", "utm_content", "_hub_dump",
        ],
        {"time": dbt.type_timestamp(), "_hub_dump": dbt.type_bigint()},
    ) }}
),

-- Heap sends rows of sessions twice.
ranked as (
    select
        told.*,
        {{ resolved_user("told.user_id", "migrations.to_user_id") }} as resolved_user_id,
        row_number() over (partition by told.session_id order by told.{{ named("time") }}, told.event_id) as nth
    from told
    left join {{ ref('stg_heap__user_migrations') }} as migrations on migrations.from_user_id = told.user_id
    where told.session_id is not null
)

select
    session_id,
    event_id,
    resolved_user_id as user_id,
    {{ named("time") }} as started_at,
    coalesce({{ named("_hub_dump") }}, 0) as arrived,
    {{ named("library") }} as library,
    platform,
    device_type,
    browser,
    country,
    region,
    city,
    referrer,
    landing_page,
    landing_page_query,
    utm_source,
    utm_medium,
    utm_campaign,
    utm_term,
    utm_content,
    {{ url_parameter(dbt.concat(["'?'", "replace(landing_page_query, '?', '')"]), "gclid") }} as gclid
from ranked
where nth = 1
