{{ heap_events("pageviews", "Pageview") }}
