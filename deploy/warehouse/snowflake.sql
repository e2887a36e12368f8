-- Gives the hub what it needs in Snowflake, and no more: a user whose role owns the hub's schemas, may read Heap's, and
-- computes in a warehouse of its own.
--
--   snow sql -f snowflake.sql -D database=ANALYTICS -D prefix=SHOP -D heap=HEAP.MAIN_PRODUCTION -D role=HEAP_HUB
--
-- `prefix` begins the names of the schemas, as `schema_prefix` does; `heap` is the schema into which Heap Connect
-- writes, with its database. Afterwards: alter user <% role %> set rsa_public_key = '...'.
use role securityadmin;
create role if not exists <% role %>;
create user if not exists <% role %> type = service default_role = <% role %>;
grant role <% role %> to user <% role %>;

use role sysadmin;
create warehouse if not exists <% role %> warehouse_size = xsmall auto_suspend = 60 initially_suspended = true;
grant usage on warehouse <% role %> to role <% role %>;
grant usage on database <% database %> to role <% role %>;
create schema if not exists <% database %>.<% prefix %>_HEAP_CONNECT;
create schema if not exists <% database %>.<% prefix %>_MODELS;
create schema if not exists <% database %>.<% prefix %>_HUB;
create schema if not exists <% database %>.<% prefix %>_EXPORTS;

use role securityadmin;
grant ownership on schema <% database %>.<% prefix %>_HEAP_CONNECT to role <% role %> copy current grants;
grant ownership on schema <% database %>.<% prefix %>_MODELS to role <% role %> copy current grants;
grant ownership on schema <% database %>.<% prefix %>_HUB to role <% role %> copy current grants;
grant ownership on schema <% database %>.<% prefix %>_EXPORTS to role <% role %> copy current grants;

grant usage on schema <% heap %> to role <% role %>;
grant select on all tables in schema <% heap %> to role <% role %>;
grant select on future tables in schema <% heap %> to role <% role %>;
