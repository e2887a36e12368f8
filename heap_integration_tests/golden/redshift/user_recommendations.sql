with recent as (
    select user_id, event_name, sum(events) as events
    from "heap"."shop_models"."int_user_day_events"
    where day between cast(
    dateadd(
        day,
        -29,
        cast('2026-01-31' as date)
        )
 as date) and cast('2026-01-31' as date)
    group by user_id, event_name
),
ranked as (
    select
        user_id,
        event_name,
        events,
        row_number() over (partition by user_id order by events desc, event_name) as place
    from recent
),
favourites as (
    select user_id, event_name, events, place from ranked where place <= 5
),
followed as (
    select
        user_id,
        event_name,
        lead(event_name) over (partition by session_id order by occurred_at, arrived) as next_event
    from "heap"."shop_models"."int_events"
    where event_day between cast(
    dateadd(
        day,
        -29,
        cast('2026-01-31' as date)
        )
 as date) and cast('2026-01-31' as date) and session_id is not null
),
pairs as (
    select user_id, event_name, next_event
    from followed
    where next_event <> event_name
    group by user_id, event_name, next_event
),
-- Similar are those who have the same event among their own top types.
similar_users as (
    select event_name, count(*) as users from favourites group by event_name
),
followers as (
    select pairs.event_name, pairs.next_event, count(*) as users
    from pairs
    inner join favourites on favourites.user_id = pairs.user_id and favourites.event_name = pairs.event_name
    group by pairs.event_name, pairs.next_event
),
shares as (
    select
        followers.event_name,
        followers.next_event,
        case when similar_users.users > 0 then cast(followers.users as float) / similar_users.users end as share
    from followers
    inner join similar_users on similar_users.event_name = followers.event_name
),
likely as (
    select
        event_name,
        next_event,
        share,
        row_number() over (partition by event_name order by share desc, next_event) as place
    from shares
),
candidates as (
    select favourites.user_id, likely.next_event as event_name, sum(likely.share) as score
    from favourites
    inner join likely on likely.event_name = favourites.event_name and likely.place <= 10
    left join recent on recent.user_id = favourites.user_id and recent.event_name = likely.next_event
    where favourites.place <= 3 and recent.user_id is null
    group by favourites.user_id, likely.next_event
),
recommended as (
    select
        user_id,
        event_name,
        score,
        row_number() over (partition by user_id order by score desc, event_name) as place
    from candidates
)
select
    user_id,
    cast('top' as varchar(65535)) as kind,
    place,
    event_name,
    cast(events as float) as score
from favourites
union all
select
    user_id,
    cast('next' as varchar(65535)) as kind,
    place,
    event_name,
    score
from recommended
where place <= 5
