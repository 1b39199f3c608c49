-- Takes away what every role of a database may do in a read-only transaction too, or once it has left it: locks that applications agree on,
-- messages in the write-ahead log, large objects, temporary files without end. Run it as a superuser, in the database that agents query:
--
--   psql shop -v gateway=mayfly -f harden.sql
--
-- `gateway` is who makes the roles of calls: it takes a lock for each. Applications need the same GRANT for what they call. Databases beside
-- this one are as they were: REVOKE CONNECT ON DATABASE ... FROM PUBLIC closes them.

\set ON_ERROR_STOP on
BEGIN;

SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', oid::regprocedure)
FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace
  AND proname ~ '^pg_(try_)?advisory_|^pg_logical_emit_message$|^lo_(creat|create|from_bytea|import|put|truncate|truncate64)$|^lowrite$'
\gexec

-- The default before PostgreSQL 15.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO :"gateway";

SELECT format('ALTER DATABASE %I SET temp_file_limit = %L', current_database(), '1GB')
\gexec

COMMIT;
