-- What should be against what is; read by capture/doctor.py (the command) and capture/watch.py (the running server).
-- Each statement returns rows of code, subject, detail; the codes' meaning is in doctor.py. None takes a parameter, none writes.

-- name: capture
SELECT fault AS code, format('%I.%I', schema_name, table_name) AS subject, resource AS detail
FROM clarion.capture_state() CROSS JOIN unnest(faults) AS fault

-- name: tables_missing
-- The trigger's function tells where a table went that was renamed while there was no guard.
SELECT 'TABLE_MISSING', format('%I.%I', r.schema_name, r.table_name),
       r.name || coalesce((SELECT '; its trigger is on ' || string_agg(t.tgrelid::regclass::text, ', ') FROM pg_trigger t
                           WHERE t.tgfoid = clarion.capture_function(r.name) AND t.tgparentid = 0), '')
FROM clarion.resources r
WHERE r.table_name IS NOT NULL
  AND NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE (n.nspname, c.relname) = (r.schema_name, r.table_name) AND c.relkind IN ('r', 'p'))

-- name: tables_gone
WITH state AS MATERIALIZED (SELECT * FROM clarion.capture_state())
SELECT 'PARTITION_GONE', format('%I.%I', k.schema_name, k.table_name), r.name
FROM clarion.captured_tables k JOIN clarion.resources r ON r.id = k.resource_id
WHERE NOT k.root AND NOT EXISTS (
    SELECT FROM state s
    WHERE s.resource_id = k.resource_id
      AND (s.member = k.table_oid OR (s.schema_name, s.table_name) = (k.schema_name, k.table_name)))

-- name: rewritten
-- A file of its own comes with VACUUM FULL too, and another type without a rewrite: it takes both.
SELECT 'ROWS_REWRITTEN', format('%I.%I', n.nspname, c.relname),
       r.name || '; column ' || (SELECT string_agg(quote_ident(a.attname), ', ') FROM pg_attribute a
                                 WHERE a.attrelid = c.oid AND now.columns ->> a.attnum::text <> k.columns ->> a.attnum::text)
FROM clarion.captured_tables k JOIN clarion.resources r ON r.id = k.resource_id
JOIN pg_class c ON c.oid = k.table_oid AND c.relkind = 'r' AND c.relfilenode <> k.file_node
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL clarion.column_types(c.oid) AS now (columns)
WHERE EXISTS (SELECT FROM jsonb_each_text(k.columns) AS was (number, kind) WHERE now.columns ->> was.number <> was.kind)

-- name: functions
SELECT CASE WHEN p.oid IS NULL THEN 'FUNCTION_MISSING' ELSE 'FUNCTION_CHANGED' END,
       coalesce(p.oid::regprocedure::text, 'clarion_triggers'),
       r.name || CASE WHEN p.oid IS NOT NULL AND pg_get_userbyid(p.proowner) <> d.capture_role
                      THEN '; it belongs to ' || pg_get_userbyid(p.proowner) ELSE '' END
FROM clarion.resources r CROSS JOIN clarion.deployment d
CROSS JOIN LATERAL clarion.capture_function(r.name) AS f (oid) LEFT JOIN pg_proc p ON p.oid = f.oid
WHERE r.table_name IS NOT NULL
  AND (p.oid IS NULL OR clarion.function_digest(p.oid) IS DISTINCT FROM r.function_sha256
       OR pg_get_userbyid(p.proowner) <> d.capture_role)

-- name: truncate_function
SELECT 'FUNCTION_CHANGED', p.oid::regprocedure::text, 'it refuses nothing'
FROM pg_proc p WHERE p.oid = to_regprocedure('clarion.refuse_truncate()') AND p.prosrc !~ 'RAISE EXCEPTION'

-- name: keys
SELECT 'KEY_LOST', format('%I.%I', r.schema_name, r.table_name), r.name || ' by ' || array_to_string(r.key_columns, ', ')
FROM clarion.resources r JOIN pg_namespace n ON n.nspname = r.schema_name
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = r.table_name AND c.relkind IN ('r', 'p')
WHERE NOT EXISTS (
    SELECT FROM pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
      AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text) FROM pg_attribute a
           WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) AND a.attnotnull)
          = (SELECT array_agg(k::text ORDER BY k::text) FROM unnest(r.key_columns) k))

-- name: problems
-- Index: ledger_problems.
SELECT 'ROW_NOT_READ', l.resource, format('%s: %s', max(l.recorded_at), (array_agg(l.problem ORDER BY l.position DESC))[1])
FROM clarion.ledger l WHERE l.problem IS NOT NULL AND l.recorded_at > now() - interval '1 day' GROUP BY l.resource

-- name: not_logged
SELECT 'TABLE_NOT_LOGGED', format('%I.%I', s.schema_name, s.table_name),
       s.resource || CASE c.relpersistence WHEN 'u' THEN '; unlogged' ELSE '; temporary' END
FROM clarion.capture_state() s JOIN pg_class c ON c.oid = s.member WHERE c.relpersistence <> 'p'

-- name: not_enrolled
SELECT 'TABLE_NOT_ENROLLED', format('%I.%I', n.nspname, c.relname), ''
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND n.nspname <> 'clarion'
  AND n.nspname IN (SELECT schema_name FROM clarion.resources)
  AND c.oid <> ALL (ARRAY(SELECT member FROM clarion.capture_state()))
  -- A partition or child is told with its parent.
  AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)

-- name: subscriptions
SELECT 'CAPTURED_TWICE', format('%I.%I', s.schema_name, s.table_name), s.resource || '; subscription ' || u.subname
FROM clarion.capture_state() s JOIN pg_subscription_rel l ON l.srrelid = s.member JOIN pg_subscription u ON u.oid = l.srsubid

-- name: guard
SELECT CASE WHEN NOT coalesce(g.wanted, false) THEN 'GUARD_OFF' WHEN e.count < 3 THEN 'GUARD_MISSING'
            WHEN e.always < 3 THEN 'GUARD_DISABLED' ELSE 'GUARD_CHANGED' END,
       'guard',
       CASE WHEN g.wanted IS NULL THEN 'it was never switched on' WHEN NOT g.wanted THEN 'switched off by ' || g.changed_by
            ELSE 'on since ' || to_char(g.changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') || ' by ' || g.changed_by END
       || CASE WHEN r.rolsuper THEN '' ELSE '; this login, ' || r.rolname || ', is no superuser' END
FROM pg_roles r LEFT JOIN clarion.guard g ON true
CROSS JOIN LATERAL (
    SELECT count(*), count(*) FILTER (WHERE t.evtenabled = 'A') AS always, coalesce(bool_and(o.rolsuper AND fo.rolsuper), true) AS owned
    FROM pg_event_trigger t JOIN pg_proc p ON p.oid = t.evtfoid JOIN pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_roles o ON o.oid = t.evtowner JOIN pg_roles fo ON fo.oid = p.proowner
    WHERE n.nspname = 'clarion_guard'
      AND (t.evtname, p.proname, t.evtevent) IN (('clarion_guard_ended', 'ended', 'ddl_command_end'),
          ('clarion_guard_dropped', 'dropped', 'sql_drop'), ('clarion_guard_rewriting', 'rewriting', 'table_rewrite'))
      AND t.evttags IS NULL
) e
CROSS JOIN LATERAL (
    SELECT sha256(coalesce(string_agg(clarion.function_digest(p.oid) || convert_to(p.proname, 'UTF8'), '' ORDER BY p.proname), '')) AS digest
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'clarion_guard'
) f
WHERE r.rolname = session_user
  AND (NOT coalesce(g.wanted, false) OR e.always < 3 OR NOT e.owned OR f.digest IS DISTINCT FROM g.functions_sha256)

-- name: break_glass
SELECT 'BREAK_GLASS_OPEN', 'window ' || id,
       'until ' || to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') || ', opened by ' || opened_by || ': ' || reason
FROM clarion.break_glass WHERE closed_at IS NULL AND until > clock_timestamp()

-- name: server_settings
SELECT 'SETTING_UNSAFE', name, 'off' FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting <> 'on'

-- name: event_triggers_setting
-- PostgreSQL 17 and newer: a superuser can switch all event triggers off, for all sessions of the database or a login.
SELECT 'GUARD_DISABLED', 'event_triggers', 'event_triggers is off'
WHERE EXISTS (SELECT FROM clarion.guard WHERE wanted)
  AND (current_setting('event_triggers', true) = 'off'
       OR EXISTS (SELECT FROM pg_db_role_setting WHERE 'event_triggers=off' = ANY (setconfig) AND setdatabase IN (
           0, (SELECT oid FROM pg_database WHERE datname = current_database()))))

-- name: outbox
SELECT 'OUTBOX_BEHIND', 'clarion.outbox',
       format('the oldest change waits for %s s; about %s rows, %s bytes',
              extract(epoch FROM clock_timestamp() - o.captured_at)::bigint, s.n_live_tup, pg_total_relation_size('clarion.outbox'))
FROM (SELECT captured_at FROM clarion.outbox ORDER BY id LIMIT 1) o
CROSS JOIN pg_stat_user_tables s
WHERE s.relid = 'clarion.outbox'::regclass AND o.captured_at < clock_timestamp() - interval '60 seconds'

-- name: router
SELECT 'ROUTER_SILENT', 'router',
       coalesce('its last sign of life was ' || extract(epoch FROM clock_timestamp() - beat_at)::bigint || ' s ago', 'it never ran')
FROM clarion.router WHERE beat_at IS NULL OR beat_at < clock_timestamp() - interval '15 seconds'

-- name: delivery
SELECT 'DELIVERY_SILENT', 'delivery',
       coalesce('the last sign of life was ' || extract(epoch FROM clock_timestamp() - max(beat_at))::bigint || ' s ago', 'none ever ran')
FROM clarion.workers
HAVING count(*) FILTER (WHERE ended_at IS NULL AND beat_at > clock_timestamp() - interval '20 seconds') = 0

-- name: holds
SELECT 'HOLD_ENDS_SOON', format('receiver %s', r.id),
       format('%s, not active since %s', r.name, to_char(r.inactive_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'))
FROM clarion.receivers r
WHERE r.deleted IS NULL AND r.inactive_since < clock_timestamp() - interval '23 days'
  AND EXISTS (SELECT FROM clarion.queue q WHERE q.receiver_id = r.id)

-- name: transactions
-- Other logins' sessions are seen with pg_read_all_stats only.
SELECT 'TRANSACTION_OLD', 'process ' || pid, format('%s s, by %s (%s)', extract(epoch FROM clock_timestamp() - xact_start)::bigint,
                                                    usename, coalesce(nullif(application_name, ''), 'no name'))
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL
  AND xact_start < clock_timestamp() - interval '10 minutes'
UNION ALL
SELECT 'TRANSACTION_OLD', 'prepared transaction ' || gid,
       format('%s s, by %s', extract(epoch FROM clock_timestamp() - prepared)::bigint, owner)
FROM pg_prepared_xacts WHERE database = current_database() AND prepared < clock_timestamp() - interval '10 minutes'

-- name: partitions
SELECT 'PARTITION_NOT_AHEAD', format('clarion.%s_%s', parent, slot), format('%s has reached %s', parent, reached)
FROM clarion.counters c
CROSS JOIN LATERAL (VALUES ('ledger', c.position), ('events', c.event_id), ('attempts', c.event_id)) AS p (parent, reached)
CROSS JOIN LATERAL generate_series(reached / 5000000, reached / 5000000 + 1) AS slot
WHERE to_regclass(format('clarion.%I', parent || '_' || slot)) IS NULL
