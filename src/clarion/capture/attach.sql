-- The trigger function of one table; capture/attach.py fills in what stands in braces (identifiers and literals, quoted).
-- Rows out: one outbox row per changed row; two where the key or the organisation changed, the second naming the first.
-- It belongs to the capture role, which may insert into the outbox and nothing else, because row_to_json runs casts
-- that the application defined. The pinned settings are those that alter how values print.
CREATE OR REPLACE FUNCTION clarion_triggers.{function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET "TimeZone" = 'UTC'
SET "DateStyle" = 'ISO, YMD'
SET "IntervalStyle" = 'iso_8601'
SET extra_float_digits = 1
SET bytea_output = 'hex'
SET lc_monetary = 'C'
SET row_security = on
AS $capture$
DECLARE
    -- An application's setting is text from outside: empty means absent, and a number that is none counts as none.
    actor_id text := nullif(current_setting('clarion.actor_id', true), '');
    actor_name text := nullif(current_setting('clarion.actor_name', true), '');
    -- Where none was given, the transaction: its number, and when it began, because a restored database counts them again.
    correlation_id text := coalesce(nullif(current_setting('clarion.correlation_id', true), ''),
                                    'tx-' || pg_current_xact_id() || '-' || extract(epoch FROM transaction_timestamp())::bigint);
    hops text := nullif(current_setting('clarion.hops', true), '');
    delete_id bigint;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        -- The binary image, not equality: json has no equality, and 1.0 to 1.00 is a change.
        IF NEW *= OLD THEN
            RETURN NULL;
        END IF;
        IF NOT ({moved}) THEN
            INSERT INTO clarion.outbox (organisation_id, organisation, resource, action, object_id, depth, old_ctid, new_ctid,
                                        actor_id, actor_name, correlation_id, hops, old, new)
            VALUES ({organisation_id_new}, {organisation_new}, {resource}, 'u', {key_new}, pg_trigger_depth(),
                    OLD.ctid, NEW.ctid, actor_id, actor_name, correlation_id,
                    CASE WHEN hops ~ '^[0-9]{{1,4}}$' THEN hops::smallint END, {row_old}, {row_new});
            RETURN NULL;
        END IF;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO clarion.outbox (organisation_id, organisation, resource, action, object_id, depth, old_ctid,
                                    actor_id, actor_name, correlation_id, hops, old)
        VALUES ({organisation_id_old}, {organisation_old}, {resource}, 'd', {key_old}, pg_trigger_depth(),
                OLD.ctid, actor_id, actor_name, correlation_id,
                CASE WHEN hops ~ '^[0-9]{{1,4}}$' THEN hops::smallint END, {row_old});
        IF TG_OP = 'UPDATE' THEN
            -- Read here: inside the next INSERT the column's default would have drawn the next one already.
            delete_id := currval('clarion.outbox_id');
        END IF;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO clarion.outbox (organisation_id, organisation, resource, action, object_id, depth, new_ctid,
                                    actor_id, actor_name, correlation_id, hops, half_of, new)
        VALUES ({organisation_id_new}, {organisation_new}, {resource}, 'c', {key_new}, pg_trigger_depth(),
                NEW.ctid, actor_id, actor_name, correlation_id,
                CASE WHEN hops ~ '^[0-9]{{1,4}}$' THEN hops::smallint END, delete_id, {row_new});
    END IF;
    RETURN NULL;
END $capture$
