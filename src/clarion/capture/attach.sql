-- The trigger functions of one resource, in parts; capture/trigger.py puts them together and fills in what stands in braces
-- (identifiers and literals, quoted).

-- name: capture
-- Rows out: one outbox row per changed row; two where the key or the organisation changed, the second naming the first.
-- It belongs to the capture role, which may insert into the outbox and nothing else, because row_to_json runs casts
-- that the application defined. Each expression costs a transaction with one row about a microsecond: few are better.
CREATE OR REPLACE FUNCTION clarion_triggers.{function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
{settings}
AS $capture$
DECLARE
    {variables}
    delete_id bigint;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        -- The binary image, not equality: json has no equality, and 1.0 to 1.00 is a change.
        IF NEW *= OLD THEN
            RETURN NULL;
        END IF;
        {read_both}
        IF {same} THEN
            INSERT INTO clarion.outbox (organisation_id, organisation, resource, action, object_id, depth, relation, old_ctid, new_ctid,
                                        problem, old, new, actor_id, actor_name, correlation_id, hops)
            VALUES ({organisation_id_new}, {organisation_new}, {resource}, 'u', key_new, pg_trigger_depth(), TG_RELID, OLD.ctid, NEW.ctid,
                    problem, row_old, row_new, {circumstances});
            RETURN NULL;
        END IF;
        {deleted}
        -- Read here: inside the next INSERT the column's default would have drawn the next one already.
        delete_id := currval('clarion.outbox_id');
        {created}
    ELSIF TG_OP = 'INSERT' THEN
        {read_new}{find_delete}
        {created}
    ELSE
        {read_old}
        {deleted}{note_delete}
    END IF;
    RETURN NULL;
END $capture$

-- name: settings
SET search_path = pg_catalog, pg_temp
-- Those that alter how values print.
SET "TimeZone" = 'UTC'
SET "DateStyle" = 'ISO, YMD'
SET "IntervalStyle" = 'iso_8601'
SET extra_float_digits = 1
SET bytea_output = 'hex'
SET lc_monetary = 'C'
SET quote_all_identifiers = off
SET row_security = on

-- name: circumstances
-- Actor, correlation and hops. A setting of the application's is text from outside: empty means absent, and a number that
-- is none counts as none.
nullif(current_setting('clarion.actor_id', true), ''), nullif(current_setting('clarion.actor_name', true), ''),
                    nullif(current_setting('clarion.correlation_id', true), ''),
                    CASE WHEN current_setting('clarion.hops', true) ~ '^[0-9]{{1,4}}$'
                         THEN current_setting('clarion.hops', true)::smallint END

-- name: deleted
        INSERT INTO clarion.outbox (organisation_id, organisation, resource, action, object_id, depth, relation, old_ctid,
                                    problem, old, actor_id, actor_name, correlation_id, hops)
        VALUES ({organisation_id_old}, {organisation_old}, {resource}, 'd', key_old, pg_trigger_depth(), TG_RELID, {old_ctid},
                problem, row_old, {circumstances});

-- name: created
        INSERT INTO clarion.outbox (organisation_id, organisation, resource, action, object_id, depth, relation, new_ctid,
                                    half_of, problem, new, actor_id, actor_name, correlation_id, hops)
        VALUES ({organisation_id_new}, {organisation_new}, {resource}, 'c', key_new, pg_trigger_depth(), TG_RELID, NEW.ctid,
                delete_id, problem, row_new, {circumstances});

-- name: read
        -- Whatever goes wrong here must not fail the application's write. Nothing is written in the block, so that the
        -- subtransaction that it is gets no number.
        BEGIN
            {read}
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            BEGIN
                {read_anyhow}
            EXCEPTION WHEN OTHERS OR assert_failure THEN
                problem := 'the row is not readable (' || SQLSTATE || ')';
                {or_nothing}
            END;
        END;

-- name: rows
-- Rows of which some columns are not shown: the others by name, which holds only while all have their names. Finds nothing
-- if a column was added since, if an excluded one has another name now, or in a child, which may have columns of its own.
            SELECT {rows} INTO STRICT {targets}
            FROM pg_class now, {sources}
            WHERE now.oid = {oid} AND now.relnatts = {count} AND TG_NARGS = 0
              AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = now.oid AND a.attnum = ANY ({numbers}::smallint[])
                                                         AND a.attname = ANY ({names}::name[])) = {checked_count};

-- name: anyhow
                SELECT found.object_id, found.organisation, found.data, concat_ws('; ', problem, found.trouble)
                INTO {key}, {organisation}, {row}, problem
                FROM clarion.read_row({record}, TG_RELID, {oid}, {keys}::text[], {key_numbers}::smallint[], {excluded}::text[],
                                      {excluded_numbers}::smallint[], {organisation_column}, {organisation_number}::smallint)
                     AS found (object_id, organisation, data, trouble);
                problem := nullif(problem, '');

-- name: note_delete
-- Partitioned tables only: what the INSERT has to know that may follow.
        PERFORM set_config('clarion.deleted_' || pg_trigger_depth(), json_build_array(
            currval('clarion.outbox_id'), {resource}, TG_RELID, statement_timestamp(), stable_old,
            -- The command that deleted, unless this transaction made the row: then the place for it holds something else.
            CASE WHEN (OLD.xmin::text::bigint - pg_current_xact_id()::text::bigint) & 4294967295 >= 2147483648
                 THEN OLD.cmax::text END
        )::text, true);

-- name: find_delete
-- A row that an UPDATE moves to another partition comes as a DELETE there and an INSERT here, one right after the other
-- and at the same depth. The INSERT names the DELETE if one command did both; where that cannot be seen, because this
-- transaction itself made the row before or changed it again since, if one message of the application's did.
        BEGIN
            moving := current_setting('clarion.deleted_' || pg_trigger_depth(), true);
            IF moving <> '' THEN
                PERFORM set_config('clarion.deleted_' || pg_trigger_depth(), '', true);
                IF moving::json ->> 1 = {resource} AND moving::json ->> 2 <> TG_RELID::text
                   AND moving::json ->> 3 = to_json(statement_timestamp()) #>> '{{}}' AND moving::json ->> 4 = stable_new
                   AND (moving::json ->> 5 IS NULL OR NEW.xmax::text <> '0' OR moving::json ->> 5 = NEW.cmin::text) THEN
                    delete_id := (moving::json ->> 0)::bigint;
                END IF;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            -- Somebody else wrote that setting: two changes, then.
            delete_id := NULL;
        END;

-- name: truncate
-- For a table whose TRUNCATE is captured as the DELETE of each row. This one reads as whoever truncates, because the capture
-- role may read no table of the application's; `truncate_rows` writes as the capture role. What passes from one to the other
-- is an open cursor, so that nobody needs a right to call the other.
CREATE OR REPLACE FUNCTION clarion_triggers.{function}() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- A policy would hide rows that TRUNCATE removes: then it is an error instead.
SET row_security = off
AS $capture$
DECLARE
    opened refcursor := 'clarion_truncated';
    bare text;
BEGIN
    WITH RECURSIVE member (oid) AS (
        SELECT TG_RELID UNION SELECT i.inhrelid FROM pg_inherits i JOIN member m ON i.inhparent = m.oid
    )
    SELECT m.oid::regclass::text INTO bare FROM member m JOIN pg_class c ON c.oid = m.oid
    WHERE c.relkind = 'r'
      AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = m.oid AND t.tgname = {rows_trigger} AND t.tgenabled = 'A');
    IF bare IS NOT NULL THEN
        RAISE EXCEPTION 'TRUNCATE of % would bypass its webhooks', bare
            USING ERRCODE = 'insufficient_privilege', HINT = 'Attach the table again: this part of it came later.';
    END IF;
    OPEN opened FOR EXECUTE format('SELECT t FROM ONLY %I.%I AS t', TG_TABLE_SCHEMA, TG_TABLE_NAME);
    RETURN NULL;
END $capture$

-- name: truncate_rows
-- One outbox row for each row that the cursor of `truncate` reads.
CREATE OR REPLACE FUNCTION clarion_triggers.{function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
{settings}
AS $capture$
DECLARE
    opened refcursor := 'clarion_truncated';
    gone record;
    {variables}
BEGIN
    LOOP
        FETCH opened INTO gone;
        EXIT WHEN NOT FOUND;
        row_old := NULL;
        problem := NULL;
        {read_old}
        {deleted}
    END LOOP;
    CLOSE opened;
    RETURN NULL;
END $capture$
