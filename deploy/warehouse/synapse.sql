-- Gives the hub what it needs in a dedicated SQL pool of Azure Synapse, and no more: a user that owns the hub's schemas.
--
--   sqlcmd -S <workspace>.sql.azuresynapse.net -d <pool> -v role=heap_hub prefix=shop login=heap_hub -i synapse.sql
--
-- The login is made beforehand in master: create login heap_hub with password = '...'. `prefix` begins the names of the
-- schemas, as `schema_prefix` does.
create user [$(role)] for login [$(login)];
go
create schema [$(prefix)_heap_connect] authorization [$(role)];
go
create schema [$(prefix)_models] authorization [$(role)];
go
create schema [$(prefix)_hub] authorization [$(role)];
go
create schema [$(prefix)_exports] authorization [$(role)];
go
-- To own a schema isn't yet to make tables in it.
grant create table, create view, create procedure to [$(role)];
go
