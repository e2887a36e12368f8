select
    events.event_id,
    events.session_id,
    events.user_id,
    events.occurred_at as time,
    events.event_name as event_type,
    coalesce(events.properties, '{}') as event_properties,
    coalesce(users.properties, '{}') as user_properties,
    events.page_url,
    events.page_title,
    events.referrer,
    events.device_type,
    events.browser,
    events.platform,
    events.country,
    events.region,
    events.city,
    events.event_day,
    events.arrived
from heap.shop_models.int_events as events
left join heap.shop_models.int_users as users on users.user_id = events.user_id
