-- Takes away what every role of a database may do in a read-only transaction too. Run it as a superuser, in the database that agents query:
--
--   psql shop -v gateway=mayfly -f harden.sql
--
-- `gateway` is who makes the roles of calls: it takes a lock for each. Applications that use advisory locks need the same GRANT, each
-- for the functions that it calls.

BEGIN;

SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', oid::regprocedure)
FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^pg_(try_)?advisory_|^pg_logical_emit_message$'
\gexec

GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO :"gateway";

SELECT format('ALTER DATABASE %I SET temp_file_limit = %L', current_database(), '1GB')
\gexec

COMMIT;
