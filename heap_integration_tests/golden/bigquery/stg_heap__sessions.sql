with told as (
    select
        cast(`event_id` as string) as `event_id`,
        cast(`user_id` as string) as `user_id`,
        cast(`session_id` as string) as `session_id`,
        cast(`time` as timestamp) as `time`,
        cast(`library` as string) as `library`,
        cast(`platform` as string) as `platform`,
        cast(null as string) as `device_type`,
        cast(`browser` as string) as `browser`,
        cast(`country` as string) as `country`,
        cast(null as string) as `region`,
        cast(null as string) as `city`,
        cast(`referrer` as string) as `referrer`,
        cast(`landing_page` as string) as `landing_page`,
        cast(`landing_page_query` as string) as `landing_page_query`,
        cast(`utm_source` as string) as `utm_source`,
        cast(`utm_medium` as string) as `utm_medium`,
        cast(null as string) as `utm_campaign`,
        cast(null as string) as `utm_term`,
        cast(null as string) as `utm_content`,
        cast(`_hub_dump` as bigint) as `_hub_dump`
    from `heap`.`shop_heap_connect`.`sessions`
),
-- Heap sends rows of sessions twice.
ranked as (
    select
        told.*,
        coalesce(migrations.to_user_id, told.user_id) as resolved_user_id,
        row_number() over (partition by told.session_id order by told.`time`, told.event_id) as nth
    from told
    left join `heap`.`shop_models`.`stg_heap__user_migrations` as migrations on migrations.from_user_id = told.user_id
    where told.session_id is not null
)
select
    session_id,
    event_id,
    resolved_user_id as user_id,
    `time` as started_at,
    coalesce(`_hub_dump`, 0) as arrived,
    `library` as library,
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
    case when '?' || replace(landing_page_query, '?', '') like '%gclid=%'
        then nullif(
    split(
    split(
    split(
        '&' || replace('?' || replace(landing_page_query, '?', ''), '?', '&'),
        '&gclid='
        )[safe_offset(1)]
,
        '&'
        )[safe_offset(0)]
,
        '#'
        )[safe_offset(0)]
, '') end as gclid
from ranked
where nth = 1
