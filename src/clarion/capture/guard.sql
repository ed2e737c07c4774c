-- The event triggers that refuse what would silence capture; run by `clarion guard on` as a superuser.
-- @owner@ stands for Clarion's owner role (a quoted identifier).
--
-- Who runs what: the three functions that the event triggers call belong to the superuser, in a schema of his, so that
-- nobody else can put other code where every DDL of the database passes. They decide from pg_catalog alone. All that
-- touches tables of schema clarion is in functions that run as Clarion's owner: a trigger, a view or a cast that somebody
-- put there would otherwise run with a superuser's rights. Nobody but superusers may look into the schema, so these functions'
-- owner cannot name them, and so neither alter nor replace them.

DROP SCHEMA IF EXISTS clarion_guard CASCADE;
CREATE SCHEMA clarion_guard;
REVOKE ALL ON SCHEMA clarion_guard FROM PUBLIC;

-- ---------------------------------------------------------------- as Clarion's owner

-- Ids of the resources that a command on these relations (or on all of a schema) concerns; null: none, or no Clarion here.
CREATE FUNCTION clarion_guard.concerned(touched oid[], schemas oid[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found bigint[];
BEGIN
    IF to_regclass('clarion.captured_tables') IS NULL OR to_regclass('clarion.resources') IS NULL THEN
        RETURN NULL;
    END IF;
    WITH RECURSIVE above (member) AS (
        SELECT unnest(touched)
        UNION SELECT i.inhparent FROM above JOIN pg_inherits i ON i.inhrelid = member
    )
    SELECT array_agg(DISTINCT concern.id) INTO found FROM (
        SELECT k.resource_id FROM clarion.captured_tables k WHERE k.table_oid = ANY (touched)
        UNION ALL
        SELECT k.resource_id FROM clarion.captured_tables k JOIN pg_class c ON c.oid = k.table_oid
        WHERE c.relnamespace = ANY (schemas)
        UNION ALL
        SELECT r.id FROM above JOIN pg_class c ON c.oid = member JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN clarion.resources r ON (r.schema_name, r.table_name) = (n.nspname, c.relname)
    ) AS concern (id);
    -- What was remembered in another life of the database says nothing about the tables here.
    IF found IS NOT NULL AND NOT EXISTS (
        SELECT FROM clarion.deployment d CROSS JOIN pg_control_system() c JOIN pg_database b ON b.datname = current_database()
        WHERE (d.system_identifier, d.database_oid) = (c.system_identifier::text, b.oid::bigint)
    ) THEN
        RETURN NULL;
    END IF;
    RETURN found;
END $$;

-- The registry follows a table that was renamed or moved to another schema. It looks first: an UPDATE of no row would count as
-- a change of the configuration all the same.
CREATE FUNCTION clarion_guard.follow(wanted bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET "clarion.organisation_id" = '' AS $$
DECLARE
    moved record;
BEGIN
    FOR moved IN
        SELECT k.table_oid, k.resource_id, k.root, n.nspname, c.relname
        FROM clarion.captured_tables k JOIN pg_class c ON c.oid = k.table_oid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE k.resource_id = ANY (wanted) AND (k.schema_name, k.table_name) <> (n.nspname, c.relname)
    LOOP
        UPDATE clarion.captured_tables SET schema_name = moved.nspname, table_name = moved.relname
        WHERE table_oid = moved.table_oid;
        IF moved.root THEN
            INSERT INTO clarion.history (organisation_id, client_name, from_address, action, object_type, object_id, before, after)
            SELECT o.id, session_user, coalesce(host(inet_client_addr()), '[local]'), 'UPDATE', 'Resource', r.id::text,
                   jsonb_build_object('table', format('%I.%I', r.schema_name, r.table_name)),
                   jsonb_build_object('table', format('%I.%I', moved.nspname, moved.relname))
            FROM clarion.resources r JOIN clarion.organisations o ON o.name = 'default' WHERE r.id = moved.resource_id;
            UPDATE clarion.resources SET schema_name = moved.nspname, table_name = moved.relname, etag = DEFAULT, updated = now(),
                updated_by_id = NULL WHERE id = moved.resource_id;
        END IF;
    END LOOP;
END $$;

-- One row for each table that belongs to one of these resources, or was remembered to.
CREATE FUNCTION clarion_guard.look(wanted bigint[])
RETURNS TABLE (resource text, root oid, member oid, shown text, capture_function oid, faults text[],
               belongs boolean, remembered boolean, root_remembered boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.name, s.root, coalesce(s.member, k.table_oid),
           format('%I.%I', coalesce(s.schema_name, k.schema_name), coalesce(s.table_name, k.table_name)),
           s.capture_function, coalesce(s.faults, '{}'), s.member IS NOT NULL, k.table_oid IS NOT NULL,
           EXISTS (SELECT FROM clarion.captured_tables o WHERE o.table_oid = s.root)
    FROM clarion.capture_state(wanted) s
    FULL JOIN (SELECT * FROM clarion.captured_tables WHERE resource_id = ANY (wanted)) k ON k.table_oid = s.member
    JOIN clarion.resources r ON r.id = coalesce(s.resource_id, k.resource_id)
$$;

CREATE FUNCTION clarion_guard.remembered(tables oid[]) RETURNS TABLE (table_oid oid, resource text, shown text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF to_regclass('clarion.captured_tables') IS NOT NULL THEN
        RETURN QUERY SELECT k.table_oid, r.name, format('%I.%I', k.schema_name, k.table_name)
            FROM clarion.captured_tables k JOIN clarion.resources r ON r.id = k.resource_id
            JOIN clarion.deployment d ON true CROSS JOIN pg_control_system() c JOIN pg_database b ON b.datname = current_database()
            WHERE k.table_oid = ANY (tables) AND (d.system_identifier, d.database_oid) = (c.system_identifier::text, b.oid::bigint);
    END IF;
END $$;

CREATE FUNCTION clarion_guard.remember(wanted bigint[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT clarion.remember_captured(wanted) $$;

CREATE FUNCTION clarion_guard.forget(tables oid[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM clarion.captured_tables WHERE table_oid = ANY (tables)
$$;

-- Whether a window of break-glass is open; if so, what it lets through is recorded.
CREATE FUNCTION clarion_guard.let_through(command text, who text, what text[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET "clarion.organisation_id" = '' AS $$
DECLARE
    opened bigint;
BEGIN
    IF to_regclass('clarion.break_glass') IS NULL THEN
        RETURN false;
    END IF;
    SELECT id INTO opened FROM clarion.break_glass WHERE closed_at IS NULL AND until > clock_timestamp() ORDER BY id DESC LIMIT 1;
    IF opened IS NULL THEN
        RETURN false;
    END IF;
    IF to_regclass('clarion.history') IS NOT NULL THEN
        INSERT INTO clarion.history (organisation_id, client_name, from_address, action, object_type, object_id, after)
        SELECT id, who, coalesce(host(inet_client_addr()), '[local]'), 'LET_THROUGH', 'BreakGlass', opened::text,
               jsonb_build_object('command', command, 'what', what)
        FROM clarion.organisations WHERE name = 'default';
    END IF;
    RETURN true;
END $$;

DO $$
DECLARE
    entry regprocedure;
BEGIN
    FOR entry IN SELECT oid FROM pg_proc WHERE pronamespace = 'clarion_guard'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO @owner@', entry);
    END LOOP;
END $$;

-- ---------------------------------------------------------------- as the superuser

-- Comes back if a window is open; otherwise refuses the command.
CREATE FUNCTION clarion_guard.refuse(command text, what text[], advice text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    acting text := current_setting('role');
    who text := session_user || CASE WHEN acting IN ('none', session_user) THEN '' ELSE ' as ' || acting END;
BEGIN
    IF clarion_guard.let_through(command, who, what) THEN
        RETURN;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
        MESSAGE = format('%s would bypass webhooks: %s', command, array_to_string(what, '; ')),
        HINT = advice || ' For a restore or a migration, open a recorded window first: clarion break-glass --reason "…".';
END $$;

-- Whether a table that this command detached or attached has rows; what cannot be looked into counts as having some.
CREATE FUNCTION clarion_guard.has_rows(relation oid) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found boolean;
BEGIN
    IF EXISTS (SELECT FROM pg_class c WHERE c.relkind NOT IN ('r', 'p') AND (c.oid = relation OR c.oid IN (
            WITH RECURSIVE below (member) AS (
                SELECT relation UNION SELECT inhrelid FROM below JOIN pg_inherits ON inhparent = member)
            SELECT member FROM below))) THEN
        RETURN true;
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', relation::regclass) INTO found;
    RETURN found;
END $$;

-- Puts the parent's triggers of ours on a partition or child. Each step looks first, because each is a command for which
-- these event triggers run again, inside this one.
CREATE FUNCTION clarion_guard.enrol(registered oid, relation oid, capture oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    carried record;
    arguments text;
BEGIN
    -- Only what the parent carries: its owner put it there, or let it be put. Those of TRUNCATE first: they tell a table that
    -- has been enrolled from one that has just come.
    FOR carried IN
        SELECT * FROM pg_trigger
        WHERE tgrelid = registered AND (tgname LIKE '!clarion\_truncate%' OR (tgname = '!clarion_capture' AND tgfoid = capture))
        ORDER BY tgname DESC
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = carried.tgname);
        SELECT coalesce(string_agg(quote_literal(argument), ', ' ORDER BY place), '') INTO arguments
        FROM unnest(string_to_array(encode(carried.tgargs, 'escape'), '\000')) WITH ORDINALITY AS a (argument, place)
        WHERE place <= carried.tgnargs;
        IF carried.tgname <> '!clarion_truncate' AND NOT (SELECT relispartition FROM pg_class WHERE oid = relation) THEN
            -- Its rows may have columns that the parent's have not: the function is told.
            arguments := quote_literal('child');
        END IF;
        IF carried.tgname = '!clarion_capture' THEN
            EXECUTE format('CREATE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION %s(%s)',
                           carried.tgname, relation::regclass, carried.tgfoid::regproc, arguments);
        ELSE
            EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %s EXECUTE FUNCTION %s(%s)',
                           carried.tgname, relation::regclass, carried.tgfoid::regproc, arguments);
        END IF;
    END LOOP;
    FOR carried IN
        SELECT tgname FROM pg_trigger WHERE tgrelid = relation AND tgname LIKE '!clarion\_%' ORDER BY tgname DESC
    LOOP
        IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = carried.tgname AND tgenabled = 'O') THEN
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation::regclass, carried.tgname);
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION clarion_guard.ended() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    touched oid[];
    schemas oid[];
    concerned bigint[];
    seen record;
    what text[] := '{}';
    lost oid[] := '{}';
    advice text := '';
BEGIN
    -- Commands that can neither change a trigger nor who belongs to a table end here.
    SELECT array_agg(coalesce(t.tgrelid, r.oid)) FILTER (WHERE coalesce(t.tgrelid, r.oid) IS NOT NULL),
           array_agg(c.objid) FILTER (WHERE c.classid = 'pg_namespace'::regclass AND c.command_tag = 'ALTER SCHEMA')
    INTO touched, schemas
    FROM pg_event_trigger_ddl_commands() c
    LEFT JOIN pg_trigger t ON c.classid = 'pg_trigger'::regclass AND t.oid = c.objid
    LEFT JOIN pg_class r ON c.classid = 'pg_class'::regclass AND r.oid = c.objid AND r.relkind IN ('r', 'p', 'f')
        AND c.command_tag NOT IN ('COMMENT', 'GRANT', 'REVOKE', 'SECURITY LABEL', 'CREATE TABLE AS', 'SELECT INTO');
    IF touched IS NULL AND schemas IS NULL THEN
        RETURN;
    END IF;
    concerned := clarion_guard.concerned(coalesce(touched, '{}'), coalesce(schemas, '{}'));
    IF concerned IS NULL THEN
        RETURN;
    END IF;
    PERFORM clarion_guard.follow(concerned);
    FOR seen IN SELECT * FROM clarion_guard.look(concerned) LOOP
        IF seen.remembered AND NOT seen.belongs THEN
            -- A table that was dropped has met the other event trigger before.
            IF EXISTS (SELECT FROM pg_class WHERE oid = seen.member) AND clarion_guard.has_rows(seen.member) THEN
                what := what || format('the rows of %s would leave %s without events', seen.shown, seen.resource);
                advice := 'DELETE its rows first.';
            END IF;
            lost := lost || seen.member;
        ELSIF seen.remembered AND seen.faults <> '{}' THEN
            -- One that is made again, as `clarion attach` does it, comes as an ordinary trigger; below it is made to fire always.
            IF tg_tag <> 'CREATE TRIGGER' OR NOT seen.faults <@ '{TRIGGER_NOT_ALWAYS,TRUNCATE_NOT_ALWAYS}' THEN
                what := what || format('%s (%s) would be left with %s', seen.shown, seen.resource, array_to_string(seen.faults, ', '));
                advice := format('`clarion detach %s` ends capture of the table.', seen.resource);
                lost := lost || seen.member;
            END IF;
        ELSIF seen.root_remembered AND NOT seen.remembered AND seen.faults <> '{}' THEN
            IF (SELECT relpersistence = 't' FROM pg_class WHERE oid = seen.member) THEN
                what := what || format('%s is temporary: its rows would leave %s without events', seen.shown, seen.resource);
                advice := 'Make it a permanent table.';
            ELSIF '{TRIGGER_CHANGED,TRUNCATE_CHANGED}' && seen.faults THEN
                what := what || format('%s has the triggers of another resource than %s', seen.shown, seen.resource);
                advice := 'A table can belong to one resource only.';
            ELSIF tg_tag = 'ALTER TABLE' AND 'TRUNCATE_MISSING' = ANY (seen.faults) AND clarion_guard.has_rows(seen.member) THEN
                what := what || format('the rows of %s would enter %s without events', seen.shown, seen.resource);
                advice := 'Attach it while it is empty, and INSERT its rows after.';
            END IF;
        END IF;
    END LOOP;
    IF what <> '{}' THEN
        PERFORM clarion_guard.refuse(tg_tag, what, advice);
    END IF;
    IF lost <> '{}' THEN
        PERFORM clarion_guard.forget(lost);
    END IF;
    -- A table that `clarion attach` has just made whole is followed by its partitions and children.
    PERFORM clarion_guard.remember(concerned);
    FOR seen IN SELECT * FROM clarion_guard.look(concerned) WHERE root_remembered AND belongs AND faults <> '{}' LOOP
        PERFORM clarion_guard.enrol(seen.root, seen.member, seen.capture_function);
    END LOOP;
    PERFORM clarion_guard.remember(concerned);
END $$;

CREATE FUNCTION clarion_guard.dropped() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tables oid[];
    what text[];
    own text[];
    advice text;
BEGIN
    -- Of a dropped trigger the table may still be there, of a dropped table only its oid.
    SELECT array_agg(coalesce(c.oid, d.objid)) INTO tables
    FROM pg_event_trigger_dropped_objects() d
    LEFT JOIN pg_namespace n ON d.object_type = 'trigger' AND n.nspname = d.address_names[1]
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = d.address_names[2]
    WHERE (d.object_type IN ('table', 'foreign table') AND d.objsubid = 0)
       OR (d.object_type = 'trigger' AND d.address_names[3] LIKE '!clarion\_%' AND c.oid IS NOT NULL);
    SELECT array_agg(d.object_identity) INTO own
    FROM pg_event_trigger_dropped_objects() d
    WHERE d.object_identity IN ('clarion', 'clarion_triggers', 'clarion.outbox', 'clarion.outbox_id', 'clarion.resources',
        'clarion.organisations', 'clarion.deployment', 'clarion.captured_tables', 'clarion.break_glass', 'clarion.history',
        'clarion.refuse_truncate()') AND d.object_type IN ('schema', 'table', 'sequence', 'function');
    IF own IS NOT NULL THEN
        PERFORM clarion_guard.refuse(tg_tag, ARRAY(SELECT 'Clarion needs ' || unnest(own)),
            'To remove Clarion, run `clarion guard off` first.');
    END IF;
    IF tables IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(DISTINCT format('%s (%s) would go, or lose its triggers', r.shown, r.resource)),
           min(format('`clarion detach %s` ends capture of a whole table; of a partition, DELETE the rows, DETACH it, then drop it.', r.resource)),
           array_agg(r.table_oid)
    INTO what, advice, tables FROM clarion_guard.remembered(tables) r;
    IF what IS NOT NULL THEN
        PERFORM clarion_guard.refuse(tg_tag, what, advice);
        PERFORM clarion_guard.forget(tables);
    END IF;
END $$;

CREATE FUNCTION clarion_guard.rewriting() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    reason integer := pg_event_trigger_table_rewrite_reason();
    relation oid := pg_event_trigger_table_rewrite_oid();
    seen record;
BEGIN
    -- 4: columns change their type. 2: a default is written into all rows, for a new column (no change of a row) or,
    -- from PostgreSQL 17 on, for another expression of a generated one; the two cannot be told apart here.
    IF reason & 4 = 0 AND NOT (reason & 2 <> 0 AND current_setting('server_version_num')::integer >= 170000
            AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = relation AND attgenerated = 's' AND NOT attisdropped)) THEN
        RETURN;
    END IF;
    SELECT * INTO seen FROM clarion_guard.remembered(ARRAY[relation]);
    IF FOUND THEN
        PERFORM clarion_guard.refuse(tg_tag,
            ARRAY[format('all rows of %s (%s) would be rewritten without events', seen.shown, seen.resource)],
            'Add a column of the new type, UPDATE the rows and drop the old column.');
    END IF;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA clarion_guard FROM PUBLIC;

CREATE EVENT TRIGGER clarion_guard_ended ON ddl_command_end EXECUTE FUNCTION clarion_guard.ended();
CREATE EVENT TRIGGER clarion_guard_dropped ON sql_drop EXECUTE FUNCTION clarion_guard.dropped();
CREATE EVENT TRIGGER clarion_guard_rewriting ON table_rewrite EXECUTE FUNCTION clarion_guard.rewriting();
ALTER EVENT TRIGGER clarion_guard_ended ENABLE ALWAYS;
ALTER EVENT TRIGGER clarion_guard_dropped ENABLE ALWAYS;
ALTER EVENT TRIGGER clarion_guard_rewriting ENABLE ALWAYS;
