{#- Where the events of the hub may say what has a column of its own: in their properties, or around them. -#}
{% macro hub_event_places() -%}
    {%- set places = [] -%}
    {%- for name in [
        "url", "page_url", "title", "page_title", "referrer", "utm_source", "utm_medium", "utm_campaign", "utm_term",
        "utm_content", "gclid", "platform", "device_type", "browser", "country", "region", "city",
    ] -%}{%- do places.append([name]) -%}{%- endfor -%}
    {{ return(places) }}
{%- endmacro %}

{% macro hub_context_places() -%}
    {{ return([
        ["page", "url"], ["page", "title"], ["page", "referrer"], ["campaign", "source"], ["campaign", "medium"],
        ["campaign", "name"], ["campaign", "term"], ["campaign", "content"], ["os", "name"], ["device", "type"],
        ["browser", "name"], ["location", "country"], ["location", "region"], ["location", "city"],
    ]) }}
{%- endmacro %}

{% macro in_event(name) -%}
    {{ json_place("in_event", hub_event_places(), [name]) }}
{%- endmacro %}

{% macro in_context(outer, inner) -%}
    {{ json_place("in_context", hub_context_places(), [outer, inner]) }}
{%- endmacro %}
