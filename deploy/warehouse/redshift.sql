-- Gives the hub what it needs in a database of Redshift, and no more: a user that owns the hub's schemas and may read
-- Heap's.
--
--   psql -v ON_ERROR_STOP=1 -v role=heap_hub -v prefix=shop -v password="$PASSWORD" -v heap=main_production \
--        -f redshift.sql <the database>
--
-- `prefix` begins the names of the schemas, as `schema_prefix` does; `heap` is the schema into which Heap Connect
-- writes. For `staging`, the cluster's own role also needs s3:GetObject and s3:ListBucket on that folder alone.
create user :"role" password :'password' nocreatedb nocreateuser;

\set heap_connect :prefix _heap_connect
\set models :prefix _models
\set hub :prefix _hub
\set exports :prefix _exports
create schema if not exists :"heap_connect" authorization :"role";
create schema if not exists :"models" authorization :"role";
create schema if not exists :"hub" authorization :"role";
create schema if not exists :"exports" authorization :"role";

grant usage on schema :"heap" to :"role";
grant select on all tables in schema :"heap" to :"role";
-- Heap makes tables later on: run by the user as whom Heap writes, this lets the hub read them too.
alter default privileges in schema :"heap" grant select on tables to :"role";
