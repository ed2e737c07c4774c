-- The body of the function by which changes of one resource are published; capture/published.py fills in what stands in
-- braces (literals, quoted). In: action, object id, data and previous as JSON text, organisation, and who acts; what is
-- null of the latter is taken from the transaction's settings, as the trigger does. Rows out: one outbox row.
-- It belongs to the capture role, which may insert into the outbox and nothing else. Nothing of the application's runs
-- in it: its arguments are text. Whoever may execute it may publish under this resource and no other.
#variable_conflict use_variable
DECLARE
    data_max integer := {data_bytes_max};
    given_hops text := coalesce(nullif(hops, ''), nullif(current_setting('clarion.hops', true), ''));
    letter "char" := CASE action WHEN 'CREATE' THEN 'c' WHEN 'UPDATE' THEN 'u' WHEN 'DELETE' THEN 'd' END;
    side text;
    -- By this transaction so far; a text that an application put there counts as none.
    published integer := coalesce(substring(current_setting('clarion.published', true) FROM '^[0-9]{{1,9}}$')::integer, 0);
BEGIN
    IF letter IS NULL THEN
        RAISE EXCEPTION 'publish: action % is none of CREATE, UPDATE, DELETE', coalesce(quote_literal(action), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF (length(object_id) BETWEEN 1 AND {object_id_length_max}) IS NOT TRUE THEN
        RAISE EXCEPTION 'publish: an object id has 1 to {object_id_length_max} characters' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF data IS NULL AND letter <> 'd' THEN
        RAISE EXCEPTION 'publish: % needs data', action USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF previous IS NOT NULL AND letter <> 'u' THEN
        RAISE EXCEPTION 'publish: previous belongs to UPDATE' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH side IN ARRAY ARRAY[data, previous] LOOP
        IF octet_length(side) > data_max THEN
            RAISE EXCEPTION 'publish: % bytes of JSON, % are allowed', octet_length(side), data_max
                USING ERRCODE = 'program_limit_exceeded';
        END IF;
        IF json_typeof(side::json) <> 'object' THEN
            RAISE EXCEPTION 'publish: data and previous are JSON objects' USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    IF {organisation} IS NULL AND (length(organisation) BETWEEN 1 AND {name_length_max}) IS NOT TRUE THEN
        RAISE EXCEPTION 'publish: name the organisation (1 to {name_length_max} characters) whose object this is'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF organisation <> {organisation} THEN
        RAISE EXCEPTION 'publish: % of organisation % may not be published here', {resource}, quote_literal(organisation)
            USING ERRCODE = 'insufficient_privilege', HINT = 'Its changes belong to the organisation it was attached with.';
    END IF;
    -- Before the id is drawn: so, of one object, ids follow the order of commits. 64 bits of a name are the lock. The server's
    -- table of locks is everybody's, so a transaction that publishes many objects takes the whole resource instead.
    IF published < {objects_locked_max} THEN
        PERFORM pg_advisory_xact_lock_shared(hashtextextended(E'clarion.publish\n' || {resource}, 0));
        PERFORM pg_advisory_xact_lock(hashtextextended(
            concat_ws(E'\n', 'clarion.publish', {resource}, coalesce(organisation, {organisation}), object_id), 0));
        PERFORM set_config('clarion.published', (published + 1)::text, true);
    ELSE
        PERFORM pg_advisory_xact_lock(hashtextextended(E'clarion.publish\n' || {resource}, 0));
    END IF;
    INSERT INTO clarion.outbox (organisation_id, organisation, resource, action, object_id,
                                actor_id, actor_name, correlation_id, hops, old, new)
    VALUES ({organisation_id}, CASE WHEN {organisation} IS NULL THEN organisation END, {resource}, letter, object_id,
            coalesce(nullif(actor_id, ''), nullif(current_setting('clarion.actor_id', true), '')),
            coalesce(nullif(actor_name, ''), nullif(current_setting('clarion.actor_name', true), '')),
            coalesce(nullif(correlation_id, ''), nullif(current_setting('clarion.correlation_id', true), '')),
            CASE WHEN given_hops ~ '^[0-9]{{1,4}}$' THEN given_hops::smallint END,
            CASE letter WHEN 'u' THEN previous WHEN 'd' THEN data END,
            CASE WHEN letter <> 'd' THEN data END);
END
