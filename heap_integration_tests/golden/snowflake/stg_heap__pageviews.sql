select
        event_id,
        'pageviews' as event_table_name,
        'Pageview' as event_name,
        resolved_user_id as user_id,
        session_id,
        time as occurred_at,
        coalesce(_hub_dump, 0) as arrived,
        case when domain is null then null else domain || coalesce(path, '') || case when query is null or query = '' then '' when query like '?%' then query else '?' || query end end as page_url,
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
            coalesce(migrations.to_user_id, told.user_id) as resolved_user_id,
            row_number() over (
                partition by told.event_id order by coalesce(told._hub_dump, 0) desc, told.time
            ) as nth
        from (
            select
        cast(event_id as TEXT) as event_id,
        cast(user_id as TEXT) as user_id,
        cast(session_id as TEXT) as session_id,
        cast(time as timestamp_ntz) as time,
        cast(library as TEXT) as library,
        cast(platform as TEXT) as platform,
        cast(null as TEXT) as device_type,
        cast(browser as TEXT) as browser,
        cast(country as TEXT) as country,
        cast(null as TEXT) as region,
        cast(null as TEXT) as city,
        cast(referrer as TEXT) as referrer,
        cast(domain as TEXT) as domain,
        cast(path as TEXT) as path,
        cast(query as TEXT) as query,
        cast(title as TEXT) as title,
        cast(null as TEXT) as utm_source,
        cast(null as TEXT) as utm_medium,
        cast(null as TEXT) as utm_campaign,
        cast(null as TEXT) as utm_term,
        cast(null as TEXT) as utm_content,
        cast(_hub_dump as bigint) as _hub_dump,
        to_json(object_construct('plan_seen', cast(plan_seen as varchar))) as properties
    from heap.shop_heap_connect.pageviews
        ) as told
        left join heap.shop_models.stg_heap__user_migrations as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
