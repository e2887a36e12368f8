select * from (
select
        event_id,
        'signup_started' as event_table_name,
        'Signup Started' as event_name,
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
        cast(null as TEXT) as referrer,
        cast(null as TEXT) as domain,
        cast(null as TEXT) as path,
        cast(null as TEXT) as query,
        cast(null as TEXT) as title,
        cast(null as TEXT) as utm_source,
        cast(null as TEXT) as utm_medium,
        cast(null as TEXT) as utm_campaign,
        cast(null as TEXT) as utm_term,
        cast(null as TEXT) as utm_content,
        cast(_hub_dump as bigint) as _hub_dump,
        to_json(object_construct('form', cast(form as varchar))) as properties
    from heap.shop_heap_connect.signup_started
        ) as told
        left join heap.shop_models.stg_heap__user_migrations as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
) as of_1
union all
select * from (
select
        event_id,
        'email_verified' as event_table_name,
        'Email Verified' as event_name,
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
        cast(null as TEXT) as referrer,
        cast(null as TEXT) as domain,
        cast(null as TEXT) as path,
        cast(null as TEXT) as query,
        cast(null as TEXT) as title,
        cast(null as TEXT) as utm_source,
        cast(null as TEXT) as utm_medium,
        cast(null as TEXT) as utm_campaign,
        cast(null as TEXT) as utm_term,
        cast(null as TEXT) as utm_content,
        cast(_hub_dump as bigint) as _hub_dump,
        '{}' as properties
    from heap.shop_heap_connect.email_verified
        ) as told
        left join heap.shop_models.stg_heap__user_migrations as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
) as of_2
union all
select * from (
select
        event_id,
        'first_purchase' as event_table_name,
        'First Purchase' as event_name,
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
        cast(null as TEXT) as referrer,
        cast(null as TEXT) as domain,
        cast(null as TEXT) as path,
        cast(null as TEXT) as query,
        cast(null as TEXT) as title,
        cast(null as TEXT) as utm_source,
        cast(null as TEXT) as utm_medium,
        cast(null as TEXT) as utm_campaign,
        cast(null as TEXT) as utm_term,
        cast(null as TEXT) as utm_content,
        cast(_hub_dump as bigint) as _hub_dump,
        to_json(object_construct('amount', cast(amount as varchar))) as properties
    from heap.shop_heap_connect.first_purchase
        ) as told
        left join heap.shop_models.stg_heap__user_migrations as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
) as of_3
union all
select * from (
select
        event_id,
        'feature_export' as event_table_name,
        'Feature: Export' as event_name,
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
        cast(null as TEXT) as referrer,
        cast(null as TEXT) as domain,
        cast(null as TEXT) as path,
        cast(null as TEXT) as query,
        cast(null as TEXT) as title,
        cast(null as TEXT) as utm_source,
        cast(null as TEXT) as utm_medium,
        cast(null as TEXT) as utm_campaign,
        cast(null as TEXT) as utm_term,
        cast(null as TEXT) as utm_content,
        cast(_hub_dump as bigint) as _hub_dump,
        '{}' as properties
    from heap.shop_heap_connect.feature_export
        ) as told
        left join heap.shop_models.stg_heap__user_migrations as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
) as of_4
