-- Gives the hub what it needs in a database of PostgreSQL, and no more: a role that owns the hub's schemas.
--
--   psql -v ON_ERROR_STOP=1 -v role=heap_hub -v prefix=shop -v password="$PASSWORD" -f postgres.sql <the database>
--
-- `prefix` begins the names of the schemas, as `schema_prefix` does. Running it again changes nothing but the password.
select format('create role %I login nosuperuser nocreatedb nocreaterole', :'role')
where not exists (select 1 from pg_roles where rolname = :'role') \gexec
alter role :"role" password :'password';

revoke create on schema public from public;
select format('grant connect, create on database %I to %I', current_database(), :'role') \gexec
select format('grant %I to current_user', :'role')
where not pg_has_role(current_user, :'role', 'member') \gexec
select format('create schema if not exists %I authorization %I', :'prefix' || '_' || part, :'role')
from unnest(array['heap_connect', 'models', 'hub', 'exports']) as parts(part) \gexec
