-- The schema, whole. Written for PostgreSQL 15 and newer.
-- @owner@, @engine@, @api@ and @capture@ stand for the four roles of this database (quoted identifiers).
-- Run inside one transaction by the Alembic revision of the same name, as @owner@.

-- ---------------------------------------------------------------- deployment

CREATE TABLE clarion.deployment (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    incarnation text NOT NULL,
    system_identifier text NOT NULL,
    timeline integer NOT NULL,
    database_oid bigint NOT NULL,
    secret_key_fingerprint text,
    owner_role name NOT NULL,
    engine_role name NOT NULL,
    api_role name NOT NULL,
    capture_role name NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE clarion.deployment IS
    'Which life of which database this is (a restore or a clone starts another incarnation), and the roles it was made with.';

CREATE TABLE clarion.configuration (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL
) WITH (fillfactor = 10);
COMMENT ON TABLE clarion.configuration IS
    'Moved by every change of what is configured. The router compares it inside each batch, the workers look at it.';
INSERT INTO clarion.configuration (version) VALUES (1);

CREATE FUNCTION clarion.configuration_moved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE clarion.configuration SET version = version + 1;
    PERFORM pg_notify('clarion_configuration', '');
    RETURN NULL;
END $$;

-- ---------------------------------------------------------------- access

CREATE TABLE clarion.organisations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
    created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE clarion.clients (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    kind text NOT NULL CHECK (kind IN ('PERSON', 'MACHINE')),
    role text NOT NULL CHECK (role IN ('ADMINISTRATOR', 'INTEGRATOR', 'OPERATOR', 'AUDITOR')),
    active boolean NOT NULL DEFAULT true,
    readable_resources text[],
    publishable_resources text[] NOT NULL DEFAULT '{}',
    etag text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    created_by_id bigint REFERENCES clarion.clients,
    updated_by_id bigint REFERENCES clarion.clients,
    UNIQUE (organisation_id, name)
);
CREATE INDEX clients_of_organisation ON clarion.clients (organisation_id, id);
COMMENT ON COLUMN clarion.clients.readable_resources IS
    'The only resources whose changes and events the client may see, subscribe to and give receivers the right to; null: all, later ones too.';
COMMENT ON COLUMN clarion.clients.publishable_resources IS
    'Resources that it may publish changes of although its role alone does not let it.';

CREATE TABLE clarion.api_keys (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    client_id bigint NOT NULL REFERENCES clarion.clients,
    prefix text NOT NULL,
    hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    etag text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    created timestamptz NOT NULL DEFAULT now(),
    created_by_id bigint REFERENCES clarion.clients,
    expires timestamptz,
    last_used timestamptz,
    revoked timestamptz,
    revoked_by_id bigint REFERENCES clarion.clients
);
CREATE INDEX api_keys_of_organisation ON clarion.api_keys (organisation_id, id);
CREATE INDEX api_keys_of_client ON clarion.api_keys (organisation_id, client_id, id);
COMMENT ON COLUMN clarion.api_keys.hash IS 'SHA-256 of the key; the key itself is stored nowhere.';
COMMENT ON COLUMN clarion.api_keys.last_used IS 'When it last opened the API, written about once a minute; null: not yet.';

CREATE TABLE clarion.history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    client_id bigint,
    client_name text NOT NULL,
    api_key_id bigint,
    from_address text,
    request_id text,
    action text NOT NULL,
    object_type text NOT NULL,
    object_id text NOT NULL,
    before jsonb,
    after jsonb,
    refusal text,
    message text
);
CREATE INDEX history_of_organisation ON clarion.history (organisation_id, at, id);
CREATE INDEX history_of_object ON clarion.history (organisation_id, object_type, object_id, at, id);
CREATE INDEX history_of_client ON clarion.history (organisation_id, client_id, at, id);
CREATE INDEX history_refused ON clarion.history (organisation_id, at, id) WHERE refusal IS NOT NULL;
COMMENT ON TABLE clarion.history IS 'Who did what, when, from where, and what it was before; also what was refused. Append-only.';
COMMENT ON COLUMN clarion.history.refusal IS 'The code of the error with which it was refused; null: it was done.';

-- What is done on the database itself, past the API. In: the organisation that it is about, null for the deployment's own,
-- `default`; it is made when absent. Who it was: the login, which nobody can choose, and the person whom the command named.
CREATE FUNCTION clarion.record_act(
    about bigint, act text, object_type text, object_id text, was jsonb DEFAULT NULL, becomes jsonb DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO clarion.history (organisation_id, client_name, from_address, action, object_type, object_id, before, after)
    VALUES (coalesce(about, clarion.ensure_organisation('default')),
            session_user || coalesce(' (' || nullif(current_setting('clarion.person', true), '') || ')', ''),
            coalesce(host(inet_client_addr()), '[local]'), act, object_type, object_id, was, becomes);
END $$;
COMMENT ON FUNCTION clarion.record_act IS 'An entry of clarion.history for what was done on the database itself, past the API.';

CREATE FUNCTION clarion.ensure_organisation(organisation_name text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made bigint;
    found bigint;
BEGIN
    -- Looked at first: even an INSERT of no row would move the configuration's version.
    SELECT id INTO found FROM clarion.organisations WHERE name = organisation_name;
    IF found IS NOT NULL THEN
        RETURN found;
    END IF;
    INSERT INTO clarion.organisations (name) VALUES (organisation_name) ON CONFLICT (name) DO NOTHING RETURNING id INTO made;
    IF made IS NULL THEN
        -- Another made it meanwhile.
        RETURN (SELECT id FROM clarion.organisations WHERE name = organisation_name);
    END IF;
    IF organisation_name <> 'default' THEN
        PERFORM clarion.record_act(entry.about, 'CREATE', 'Organisation', made::text, NULL,
                                   jsonb_build_object('name', organisation_name))
        FROM unnest(ARRAY[NULL, made]) AS entry (about);
    END IF;
    RETURN made;
END $$;
COMMENT ON FUNCTION clarion.ensure_organisation IS 'The id of the organisation of this name, made when absent: both its history and the deployment''s tell of it.';

CREATE TABLE clarion.idempotency_keys (
    id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    client_id bigint NOT NULL REFERENCES clarion.clients,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_sha256 bytea NOT NULL CHECK (length(request_sha256) = 32),
    status smallint NOT NULL,
    answer_sealed bytea NOT NULL,
    created timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (client_id, key)
);
CREATE INDEX idempotency_keys_by_age ON clarion.idempotency_keys (created);
COMMENT ON TABLE clarion.idempotency_keys IS
    'Answers of requests that came with an idempotency key, written in the transaction of what they did: who asks again is told the same. Kept for a day.';

-- ---------------------------------------------------------------- registry

CREATE TABLE clarion.resources (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[A-Z][A-Z0-9_]{0,62}$'),
    singular text CHECK (singular ~ '^[A-Z][A-Z0-9_]{0,62}$'),
    description text NOT NULL,
    schema_name name,
    table_name name,
    key_columns name[] NOT NULL,
    excluded_columns name[] NOT NULL DEFAULT '{}',
    organisation_column name,
    organisation_id bigint REFERENCES clarion.organisations,
    created timestamptz NOT NULL DEFAULT now(),
    label_column name,
    on_truncate text NOT NULL DEFAULT 'REFUSE' CHECK (on_truncate IN ('REFUSE', 'DELETE')),
    function_sha256 bytea,
    json_schema text CHECK (length(json_schema) BETWEEN 2 AND 65536),
    etag text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    updated timestamptz NOT NULL DEFAULT now(),
    created_by_id bigint REFERENCES clarion.clients,
    updated_by_id bigint REFERENCES clarion.clients,
    UNIQUE (schema_name, table_name),
    CHECK (json_schema IS NULL OR table_name IS NULL),
    CHECK ((schema_name IS NULL) = (table_name IS NULL)),
    CHECK ((cardinality(key_columns) = 0) = (table_name IS NULL))
);
COMMENT ON TABLE clarion.resources IS 'Kinds of objects: the rows of a table that is attached or, without a table, what is published.';
COMMENT ON COLUMN clarion.resources.created_by_id IS
    'The client that registered it through the API; null: it was attached on the database, by the login that clarion.history names.';
COMMENT ON COLUMN clarion.resources.label_column IS 'Column that names the object for people.';
COMMENT ON COLUMN clarion.resources.on_truncate IS 'Whether TRUNCATE is refused, or captured as the DELETE of each row.';
COMMENT ON COLUMN clarion.resources.function_sha256 IS 'Digest of the trigger function as it was made.';
COMMENT ON COLUMN clarion.resources.json_schema IS 'JSON Schema (2020-12) that the data of published changes is checked against; null: any object.';
COMMENT ON COLUMN clarion.resources.organisation_column IS
    'Column with the organisation''s name (or, in schema clarion, its id); null: all belong to organisation_id; both null: each publish names it.';

CREATE TABLE clarion.receivers (
    -- By default: the registry draws the id first, because the sealed secret is bound to it.
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    description text,
    webhook_uri text NOT NULL CHECK (length(webhook_uri) <= 2048),
    content_type text NOT NULL DEFAULT 'application/json',
    expected_response_code smallint CHECK (expected_response_code BETWEEN 100 AND 599),
    active boolean NOT NULL DEFAULT true,
    disabled_reason text CHECK (disabled_reason IN ('MANUAL', 'GONE', 'NO_SUCCESS')),
    inactive_since timestamptz,
    retry_schedule integer[] NOT NULL DEFAULT '{0,5,300,1800,7200,18000,36000,50400,72000,86400}'
        CHECK (cardinality(retry_schedule) BETWEEN 1 AND 20),
    timeout_seconds smallint NOT NULL DEFAULT 15 CHECK (timeout_seconds BETWEEN 1 AND 30),
    concurrency smallint NOT NULL DEFAULT 4 CHECK (concurrency BETWEEN 1 AND 64),
    rate_limit_per_second integer CHECK (rate_limit_per_second BETWEEN 1 AND 100000),
    ordering text NOT NULL DEFAULT 'PER_OBJECT' CHECK (ordering IN ('PER_OBJECT', 'NONE')),
    lane_block_max_seconds integer CHECK (lane_block_max_seconds BETWEEN 1 AND 2592000),
    signatures text[] NOT NULL DEFAULT '{V1}' CHECK (signatures <@ '{V1,V1A,ION}' AND cardinality(signatures) > 0),
    shared_secret_sealed bytea NOT NULL,
    shared_secret_hint text NOT NULL CHECK (length(shared_secret_hint) = 4),
    previous_secret_sealed bytea,
    previous_secret_until timestamptz,
    ca_certificates text CHECK (length(ca_certificates) <= 65536),
    client_certificate text CHECK (length(client_certificate) <= 65536),
    client_key_sealed bytea,
    readable_resources text[],
    etag text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    created_by_id bigint REFERENCES clarion.clients,
    updated_by_id bigint REFERENCES clarion.clients,
    deleted timestamptz,
    UNIQUE (organisation_id, id),
    CHECK ((previous_secret_sealed IS NULL) = (previous_secret_until IS NULL)),
    CHECK ((client_certificate IS NULL) = (client_key_sealed IS NULL))
);
CREATE INDEX receivers_of_organisation ON clarion.receivers (organisation_id, id) WHERE deleted IS NULL;
COMMENT ON COLUMN clarion.receivers.inactive_since IS 'Set by a trigger, whoever switches it off; from when on its events are held.';
CREATE FUNCTION clarion.note_inactive() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.inactive_since := CASE WHEN NEW.active THEN NULL WHEN TG_OP = 'UPDATE' AND NOT OLD.active THEN OLD.inactive_since
                               ELSE clock_timestamp() END;
    RETURN NEW;
END $$;
CREATE TRIGGER note_inactive BEFORE INSERT OR UPDATE OF active, inactive_since ON clarion.receivers
    FOR EACH ROW EXECUTE FUNCTION clarion.note_inactive();
COMMENT ON COLUMN clarion.receivers.readable_resources IS
    'The only resources whose events it may be sent, a right of its own that outlives the client who granted it; null: all, later ones too.';
COMMENT ON COLUMN clarion.receivers.shared_secret_hint IS 'The last four characters of the secret, to tell one from another.';
COMMENT ON COLUMN clarion.receivers.previous_secret_until IS 'Until then requests are signed with the secret before the last rotation too.';
COMMENT ON COLUMN clarion.receivers.ca_certificates IS 'PEM; if set, the only authorities that this receiver''s certificate may come from.';
COMMENT ON COLUMN clarion.receivers.client_certificate IS 'PEM, leaf first: what this side shows when the receiver asks for a certificate.';

CREATE TABLE clarion.headers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    receiver_id bigint NOT NULL REFERENCES clarion.receivers,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    value_sealed bytea NOT NULL,
    etag text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    created_by_id bigint REFERENCES clarion.clients,
    updated_by_id bigint REFERENCES clarion.clients
);
CREATE UNIQUE INDEX headers_of_receiver ON clarion.headers (receiver_id, lower(key));

CREATE TABLE clarion.subscriptions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    receiver_id bigint NOT NULL REFERENCES clarion.receivers,
    resource text NOT NULL,
    action text NOT NULL CHECK (action IN ('CREATE', 'UPDATE', 'DELETE')),
    active boolean NOT NULL DEFAULT true,
    expires_after_seconds integer CHECK (expires_after_seconds BETWEEN 1 AND 2592000),
    condition text CHECK (length(condition) BETWEEN 1 AND 4000),
    fields text[] CHECK (cardinality(fields) > 0),
    template text CHECK (length(template) BETWEEN 1 AND 16000),
    etag text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    created_by_id bigint REFERENCES clarion.clients,
    updated_by_id bigint REFERENCES clarion.clients,
    deleted timestamptz,
    CHECK (fields IS NULL OR template IS NULL)
);
COMMENT ON COLUMN clarion.subscriptions.condition IS 'CEL: events are made of changes for which it is true; null: of all.';
COMMENT ON COLUMN clarion.subscriptions.fields IS 'The only fields that bodies show; null: all.';
COMMENT ON COLUMN clarion.subscriptions.template IS 'CEL: a map that is sent in place of the standard body.';
CREATE INDEX subscriptions_of_organisation ON clarion.subscriptions (organisation_id, id) WHERE deleted IS NULL;
CREATE INDEX subscriptions_of_receiver ON clarion.subscriptions (receiver_id, id) WHERE deleted IS NULL;

CREATE TABLE clarion.subscription_resources (
    organisation_id bigint NOT NULL,
    resource text NOT NULL,
    action text NOT NULL,
    subscription_id bigint NOT NULL REFERENCES clarion.subscriptions,
    PRIMARY KEY (organisation_id, subscription_id, resource, action)
);
CREATE INDEX subscription_resources_of_resource ON clarion.subscription_resources (organisation_id, resource, action, subscription_id);
COMMENT ON TABLE clarion.subscription_resources IS
    'Whatever a subscription has ever listened for: a resource''s events are those of these subscriptions, also of edited and deleted ones.';

CREATE FUNCTION clarion.remember_resource() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO clarion.subscription_resources (organisation_id, resource, action, subscription_id)
    VALUES (NEW.organisation_id, NEW.resource, NEW.action, NEW.id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER remember_resource AFTER INSERT OR UPDATE OF resource, action ON clarion.subscriptions
    FOR EACH ROW EXECUTE FUNCTION clarion.remember_resource();

CREATE TABLE clarion.signing_keys (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    public_key bytea NOT NULL CHECK (length(public_key) = 32),
    private_key_sealed bytea NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    signs_from timestamptz NOT NULL,
    signs_until timestamptz
);
COMMENT ON TABLE clarion.signing_keys IS
    'Ed25519 keys of the deployment (v1a signatures). Published as soon as they are here, and until a day after they signed last.';

CREATE TABLE clarion.egress_rules (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    environment text NOT NULL CHECK (length(environment) BETWEEN 1 AND 100),
    host text CHECK (length(host) BETWEEN 1 AND 253),
    network cidr NOT NULL,
    port integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    note text NOT NULL CHECK (length(note) <= 2000),
    etag text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    created timestamptz NOT NULL DEFAULT now(),
    created_by_id bigint REFERENCES clarion.clients
);
CREATE UNIQUE INDEX egress_rules_once ON clarion.egress_rules (environment, coalesce(host, ''), network, port);
COMMENT ON TABLE clarion.egress_rules IS
    'Exceptions to the table of forbidden addresses. They hold for every organisation; the organisation is that of who made them.';

CREATE TABLE clarion.tests (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organisation_id bigint NOT NULL,
    receiver_id bigint NOT NULL,
    requested_by_id bigint REFERENCES clarion.clients,
    created timestamptz NOT NULL DEFAULT clock_timestamp(),
    message text NOT NULL DEFAULT 'A test: nothing has happened.',
    FOREIGN KEY (organisation_id, receiver_id) REFERENCES clarion.receivers (organisation_id, id)
);
CREATE INDEX tests_of_receiver ON clarion.tests (receiver_id, created);
COMMENT ON TABLE clarion.tests IS
    'Test sends that were asked for. Captured like any table; the router makes one event of each row, for its receiver alone.';

CREATE TRIGGER configuration_moved AFTER INSERT OR UPDATE OR DELETE ON clarion.signing_keys
    FOR EACH STATEMENT EXECUTE FUNCTION clarion.configuration_moved();
CREATE TRIGGER configuration_moved AFTER INSERT OR UPDATE OR DELETE ON clarion.egress_rules
    FOR EACH STATEMENT EXECUTE FUNCTION clarion.configuration_moved();
CREATE TRIGGER configuration_moved AFTER INSERT OR UPDATE OR DELETE ON clarion.organisations
    FOR EACH STATEMENT EXECUTE FUNCTION clarion.configuration_moved();
CREATE TRIGGER configuration_moved AFTER INSERT OR UPDATE OR DELETE ON clarion.resources
    FOR EACH STATEMENT EXECUTE FUNCTION clarion.configuration_moved();
CREATE TRIGGER configuration_moved AFTER INSERT OR UPDATE OR DELETE ON clarion.receivers
    FOR EACH STATEMENT EXECUTE FUNCTION clarion.configuration_moved();
CREATE TRIGGER configuration_moved AFTER INSERT OR UPDATE OR DELETE ON clarion.headers
    FOR EACH STATEMENT EXECUTE FUNCTION clarion.configuration_moved();
CREATE TRIGGER configuration_moved AFTER INSERT OR UPDATE OR DELETE ON clarion.subscriptions
    FOR EACH STATEMENT EXECUTE FUNCTION clarion.configuration_moved();

-- ---------------------------------------------------------------- capture

CREATE SEQUENCE clarion.outbox_id AS bigint CACHE 1;
-- The number of the transaction comes first, as defaults are evaluated in this order: whoever has drawn an id and not ended is then among
-- the transactions that a snapshot lists as running. Looks rely on it (routing/scan.py, clarion.await_work).
CREATE TABLE clarion.outbox (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id bigint PRIMARY KEY DEFAULT nextval('clarion.outbox_id'),
    organisation_id bigint,
    organisation text,
    resource text NOT NULL,
    action "char" NOT NULL,
    object_id text NOT NULL,
    depth smallint NOT NULL DEFAULT 1,
    old_ctid tid,
    new_ctid tid,
    half_of bigint,
    occurred_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    captured_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor_id text,
    actor_name text,
    correlation_id text,
    hops smallint,
    old text,
    new text,
    relation oid,
    problem text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
COMMENT ON TABLE clarion.outbox IS
    'Changes that committed and that the router has not yet taken. The id is drawn while the row lock is held, hence follows commit order per object.';
COMMENT ON COLUMN clarion.outbox.half_of IS
    'A change of key or organisation is a DELETE and a CREATE; the CREATE names the id of the DELETE here. If key and organisation are the same, a row moved to another partition: the router makes one UPDATE of the two.';
COMMENT ON COLUMN clarion.outbox.relation IS 'The table that holds the row: a partition or a child of the attached one, or that one itself.';
COMMENT ON COLUMN clarion.outbox.problem IS 'What of the row could not be read as it should, and what stands for it.';
CREATE INDEX outbox_halves ON clarion.outbox (half_of) WHERE half_of IS NOT NULL;
COMMENT ON COLUMN clarion.outbox.depth IS 'Nesting of triggers: above 1, the row may have been drawn before its predecessor.';

CREATE TABLE clarion.intake (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    kind text NOT NULL CHECK (kind IN ('RETRY', 'REPLAY')),
    request jsonb NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE clarion.intake IS 'Requests for queue rows that are not born from a change; the router takes them like the outbox.';

-- What belongs to capture and who watches over it: clarion guard, clarion break-glass, clarion doctor.

CREATE TABLE clarion.captured_tables (
    table_oid oid PRIMARY KEY,
    resource_id bigint NOT NULL REFERENCES clarion.resources ON DELETE CASCADE,
    root boolean NOT NULL,
    schema_name name NOT NULL,
    table_name name NOT NULL,
    file_node oid NOT NULL,
    columns jsonb NOT NULL
);
CREATE INDEX captured_tables_of_resource ON clarion.captured_tables (resource_id);
COMMENT ON TABLE clarion.captured_tables IS
    'The tables, partitions and children of resources that were found with all their triggers on: whatever leaves this list was taken away.';
COMMENT ON COLUMN clarion.captured_tables.columns IS
    'Type and generating expression of each column by its number, as they were; with another type and another file the rows were rewritten.';

CREATE TABLE clarion.guard (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    wanted boolean NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL,
    functions_sha256 bytea
);
COMMENT ON TABLE clarion.guard IS 'Whether the event triggers are to be there, and the digest of their functions as they were made.';

CREATE TABLE clarion.break_glass (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 2000),
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    opened_by text NOT NULL,
    until timestamptz NOT NULL,
    closed_at timestamptz,
    closed_by text,
    CHECK (until > opened_at AND until <= opened_at + interval '1 day')
);
COMMENT ON TABLE clarion.break_glass IS
    'Windows in which the guard lets through what it would refuse. Open: not closed and until lies ahead. One that a transaction opens and closes holds for that transaction alone.';

CREATE TABLE clarion.alarms (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text NOT NULL,
    subject text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('FAILURE', 'WARNING', 'INFORMATION')),
    message text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended timestamptz
);
CREATE UNIQUE INDEX alarms_open ON clarion.alarms (code, subject) WHERE ended IS NULL;
COMMENT ON TABLE clarion.alarms IS 'What the running server found wrong: since when, when it was last seen, and when it was no longer so.';

-- They are the deployment's, not an organisation's: the API shows them to the deployment's own organisation alone.
DO $$
DECLARE
    entry text;
BEGIN
    FOREACH entry IN ARRAY ARRAY['break_glass', 'alarms'] LOOP
        EXECUTE format('ALTER TABLE clarion.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', entry);
        EXECUTE format('CREATE POLICY owner_all ON clarion.%I TO @owner@ USING (true) WITH CHECK (true)', entry);
        EXECUTE format('CREATE POLICY engine_all ON clarion.%I TO @engine@ USING (true) WITH CHECK (true)', entry);
        EXECUTE format('CREATE POLICY api_of_the_deployment ON clarion.%I FOR SELECT TO @api@ USING ('
                       'nullif(current_setting(''clarion.organisation_id'', true), '''')::bigint '
                       '= (SELECT id FROM clarion.organisations WHERE name = ''default''))', entry);
    END LOOP;
END $$;

-- Without a pinned search_path, and therefore spelled out: so it becomes part of the statement that asks.
CREATE FUNCTION clarion.tables_of(registered oid) RETURNS SETOF oid
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE members (member) AS (
        SELECT registered
        UNION SELECT i.inhrelid FROM members JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) member
    )
    SELECT member FROM members
$$;
COMMENT ON FUNCTION clarion.tables_of IS
    'The tables whose rows are a resource''s: the registered one, its partitions and INHERITS children, at any depth.';

CREATE FUNCTION clarion.capture_function_name(resource text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN pg_catalog.length(resource) OPERATOR(pg_catalog.<=) 55 THEN 'capture_' OPERATOR(pg_catalog.||) pg_catalog.lower(resource)
        ELSE pg_catalog.left('capture_' OPERATOR(pg_catalog.||) pg_catalog.lower(resource), 50) OPERATOR(pg_catalog.||) '_'
             OPERATOR(pg_catalog.||) pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(resource::pg_catalog.bytea), 'hex'), 12) END
$$;
CREATE FUNCTION clarion.capture_function(resource text) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'clarion_triggers' AND p.pronargs = 0 AND p.proname = clarion.capture_function_name(resource)
$$;
COMMENT ON FUNCTION clarion.capture_function IS 'The trigger function that clarion attach makes for a resource; null if it is not there.';

CREATE FUNCTION clarion.function_digest(function oid) RETURNS bytea
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT sha256(convert_to(jsonb_build_array(p.prosrc, p.proconfig, p.prosecdef, p.provolatile, p.proisstrict, l.lanname)::text, 'UTF8'))
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.oid = function
$$;
COMMENT ON FUNCTION clarion.function_digest IS 'Of all that decides what a function does, without its owner; the same on every version of the server.';

CREATE FUNCTION clarion.column_types(relation oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(a.attnum::text, concat_ws(' = ', format_type(a.atttypid, NULL),
        CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END)), '{}')
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
$$;

CREATE FUNCTION clarion.capture_state(wanted bigint[] DEFAULT NULL)
RETURNS TABLE (resource_id bigint, resource text, root oid, member oid, schema_name name, table_name name,
               capture_function oid, faults text[])
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.id, r.name, registered.oid, m.oid, n.nspname, m.relname, f.oid, array_remove(ARRAY[
        CASE WHEN t.oid IS NULL THEN 'TRIGGER_MISSING'
             -- 29: after, for each row, of INSERT, UPDATE and DELETE. Anything narrower would let writes pass.
             WHEN t.tgfoid IS DISTINCT FROM f.oid OR t.tgtype <> 29 OR t.tgqual IS NOT NULL OR t.tgattr::text <> ''
                  OR t.tgdeferrable THEN 'TRIGGER_CHANGED'
             WHEN t.tgenabled <> 'A' THEN 'TRIGGER_NOT_ALWAYS' END,
        u.fault,
        CASE WHEN m.oid = registered.oid AND EXISTS (
                 SELECT FROM unnest(r.key_columns || r.organisation_column) AS named (name)
                 WHERE name IS NOT NULL AND NOT EXISTS (
                     SELECT FROM pg_attribute a WHERE a.attrelid = m.oid AND a.attname = name AND NOT a.attisdropped)
             ) THEN 'COLUMN_MISSING' END
    ], NULL)
    FROM clarion.resources r
    JOIN pg_namespace rn ON rn.nspname = r.schema_name
    JOIN pg_class registered ON registered.relnamespace = rn.oid AND registered.relname = r.table_name
        AND registered.relkind IN ('r', 'p')
    CROSS JOIN LATERAL clarion.tables_of(registered.oid) AS members (oid)
    JOIN pg_class m ON m.oid = members.oid
    JOIN pg_namespace n ON n.oid = m.relnamespace
    LEFT JOIN pg_proc f ON f.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'clarion_triggers')
        AND f.pronargs = 0 AND f.proname = clarion.capture_function_name(r.name)::name
    LEFT JOIN pg_trigger t ON t.tgrelid = m.oid AND t.tgname = '!clarion_capture'
    -- What the registered table has against TRUNCATE, its partitions and children have too: a trigger for the statement is
    -- not handed down.
    CROSS JOIN LATERAL (
        SELECT min(CASE WHEN u.oid IS NULL THEN 'TRUNCATE_MISSING'
                        -- 34: before, for the statement, of TRUNCATE.
                        WHEN u.tgtype <> 34 OR u.tgfoid IS DISTINCT FROM coalesce(o.tgfoid, u.tgfoid)
                             OR NOT EXISTS (
                                 SELECT FROM pg_proc p JOIN pg_namespace pn ON pn.oid = p.pronamespace
                                 WHERE p.oid = u.tgfoid AND pn.nspname IN ('clarion', 'clarion_triggers')) THEN 'TRUNCATE_CHANGED'
                        WHEN u.tgenabled <> 'A' THEN 'TRUNCATE_NOT_ALWAYS' END)
        FROM (SELECT tgname, tgfoid FROM pg_trigger WHERE tgrelid = registered.oid AND tgname LIKE '!clarion\_truncate%'
              UNION SELECT '!clarion_truncate', NULL WHERE NOT EXISTS (
                  SELECT FROM pg_trigger WHERE tgrelid = registered.oid AND tgname = '!clarion_truncate')) AS o
        LEFT JOIN pg_trigger u ON u.tgrelid = m.oid AND u.tgname = o.tgname
    ) AS u (fault)
    WHERE wanted IS NULL OR r.id = ANY (wanted)
$$;
COMMENT ON FUNCTION clarion.capture_state IS
    'Every table of every resource (or of those wanted) and what its capture lacks, by the codes of clarion doctor; nothing: whole.';

CREATE FUNCTION clarion.remember_captured(wanted bigint[] DEFAULT NULL) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO clarion.captured_tables (table_oid, resource_id, root, schema_name, table_name, file_node, columns)
    SELECT DISTINCT ON (member) member, resource_id, member = root, schema_name, table_name, c.relfilenode, clarion.column_types(member)
    FROM clarion.capture_state(wanted) JOIN pg_class c ON c.oid = member WHERE faults = '{}'
    ON CONFLICT (table_oid) DO UPDATE
        SET (resource_id, root, schema_name, table_name)
            = (excluded.resource_id, excluded.root, excluded.schema_name, excluded.table_name)
        WHERE (captured_tables.resource_id, captured_tables.root, captured_tables.schema_name, captured_tables.table_name)
            IS DISTINCT FROM (excluded.resource_id, excluded.root, excluded.schema_name, excluded.table_name)
$$;
COMMENT ON FUNCTION clarion.remember_captured IS 'Enters the tables that are whole into captured_tables; takes none out.';

CREATE FUNCTION clarion.forget_captured(attaching text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM clarion.captured_tables WHERE resource_id = (SELECT id FROM clarion.resources WHERE name = attaching)
$$;
COMMENT ON FUNCTION clarion.forget_captured IS 'Until the resource is remembered again, the guard lets go of its tables.';

-- What of a resource is captured, or who may publish it, as the history keeps it; null: there is no such resource.
CREATE FUNCTION clarion.resource_state(wanted text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('name', r.name, 'singular', r.singular, 'description', r.description,
                              'organisation', (SELECT o.name FROM clarion.organisations o WHERE o.id = r.organisation_id))
        || CASE WHEN r.table_name IS NULL THEN jsonb_build_object(
            'jsonSchema', r.json_schema::jsonb,
            'publishers', ARRAY(
                SELECT g.rolname::text FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) a JOIN pg_roles g ON g.oid = a.grantee
                WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'clarion_triggers')
                    AND p.proname = overlay(clarion.capture_function_name(r.name) placing 'publish' from 1)::name AND a.grantee <> p.proowner
                ORDER BY 1))
        ELSE jsonb_build_object(
            'table', format('%I.%I', r.schema_name, r.table_name), 'keyColumns', r.key_columns, 'excludedColumns', r.excluded_columns,
            'organisationColumn', r.organisation_column, 'labelColumn', r.label_column, 'onTruncate', r.on_truncate,
            -- The table, its partitions and its children, those whose triggers are as they should be.
            'captured', ARRAY(SELECT format('%I.%I', s.schema_name, s.table_name) FROM clarion.capture_state(ARRAY[r.id]) s
                              WHERE s.faults = '{}' ORDER BY 1)) END
    FROM clarion.resources r WHERE r.name = wanted
$$;

CREATE FUNCTION clarion.note_attaching(attaching text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT set_config('clarion.attaching', coalesce(clarion.resource_state(attaching)::text, ''), true);
    SELECT clarion.forget_captured(attaching)
$$;
COMMENT ON FUNCTION clarion.note_attaching IS
    'Run by clarion attach at its beginning: keeps what the resource was, and the guard lets go of its tables until note_attached.';

CREATE FUNCTION clarion.record_attached(attached text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    resource bigint := (SELECT id FROM clarion.resources WHERE name = attached AND schema_name IS DISTINCT FROM 'clarion');
    was jsonb := nullif(current_setting('clarion.attaching', true), '')::jsonb;
    becomes jsonb := clarion.resource_state(attached);
    differing text[];
BEGIN
    IF resource IS NULL THEN
        RETURN; -- Clarion's own come with it.
    ELSIF was IS NULL THEN
        PERFORM clarion.record_act(NULL, 'CREATE', 'Resource', resource::text, NULL, becomes);
        RETURN;
    END IF;
    SELECT array_agg(key) INTO differing FROM jsonb_each(becomes) WHERE value IS DISTINCT FROM was -> key;
    IF differing IS NOT NULL THEN
        UPDATE clarion.resources SET etag = DEFAULT, updated = now(), updated_by_id = NULL WHERE id = resource;
        PERFORM clarion.record_act(NULL, 'UPDATE', 'Resource', resource::text,
            (SELECT jsonb_object_agg(key, was -> key) FROM unnest(differing) AS key),
            (SELECT jsonb_object_agg(key, becomes -> key) FROM unnest(differing) AS key));
    END IF;
END $$;
COMMENT ON FUNCTION clarion.record_attached IS 'Writes into the history what differs from what note_attaching kept; nothing if nothing does.';

CREATE FUNCTION clarion.forget_resource(detached text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT clarion.record_act(NULL, 'DELETE', 'Resource', id::text, clarion.resource_state(name))
    FROM clarion.resources WHERE name = detached;
    DELETE FROM clarion.resources WHERE name = detached
$$;
COMMENT ON FUNCTION clarion.forget_resource IS 'Run by clarion detach at its beginning: the resource is no more, and the history tells what it was.';

CREATE FUNCTION clarion.note_attached(attached text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    noted clarion.resources;
    proprietor name;
BEGIN
    UPDATE clarion.resources SET function_sha256 = clarion.function_digest(clarion.capture_function(name))
    WHERE name = attached RETURNING * INTO noted;
    -- Whoever makes a partition needs it, because the trigger is made on it too. Nobody can name the function: its schema is closed.
    SELECT pg_get_userbyid(c.relowner) INTO proprietor FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE (n.nspname, c.relname) = (noted.schema_name, noted.table_name);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', clarion.capture_function(attached)::regprocedure, proprietor);
    PERFORM clarion.forget_captured(attached);
    PERFORM clarion.remember_captured(ARRAY[noted.id]);
    PERFORM clarion.record_attached(attached);
END $$;
COMMENT ON FUNCTION clarion.note_attached IS 'Run by clarion attach at its end: what is there now is what is to be there.';

-- What POST /v1/changes comes down to: a batch of changes of the caller's organisation, all or none. In: the published
-- resources with the etags that the changes were checked against, then one entry of each array for each change, in order
-- (`places`: which of the resources, from 1). Rows out: one outbox row a change. It runs as the owner, because the API's role may
-- not write into the outbox; so the organisation is the transaction's and never an argument. The locks are those of
-- capture/publish.sql, which orders this with what applications publish in their own transactions; all are taken, in one order for
-- all batches, before any id is drawn. No answer is lost with the server: whatever its default is, the commit waits for the disk.
CREATE FUNCTION clarion.publish_changes(
    resources text[], etags text[], places integer[], actions text[], object_ids text[], olds text[], news text[],
    actor_ids text[], actor_names text[], correlation_ids text[]
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    organisation bigint := clarion.current_organisation_id();
    organisation_name text := (SELECT o.name FROM clarion.organisations o WHERE o.id = organisation);
    give_in_at timestamptz;
    next_lock bigint;
BEGIN
    IF organisation_name IS NULL THEN
        RAISE EXCEPTION 'publish: no organisation is named' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF EXISTS (
        SELECT FROM unnest(places, actions, object_ids, olds, news) AS c (place, action, object_id, old, new)
        WHERE (resources[c.place] IS NOT NULL AND length(c.object_id) BETWEEN 1 AND 1000
               AND CASE c.action WHEN 'c' THEN c.old IS NULL AND c.new IS NOT NULL WHEN 'u' THEN c.new IS NOT NULL
                                 WHEN 'd' THEN c.new IS NULL END
               AND coalesce(octet_length(c.old), 0) <= 1048576 AND coalesce(json_typeof(c.old::json), 'object') = 'object'
               AND coalesce(octet_length(c.new), 0) <= 1048576 AND coalesce(json_typeof(c.new::json), 'object') = 'object'
              ) IS NOT TRUE) THEN
        RAISE EXCEPTION 'publish: a change is none' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    -- Half of what PostgreSQL waits before it looks for a circle of locks, and for all locks together: who waits for one of them came
    -- after this began, so if there is a circle, this gives in, and no application's transaction is ended for it.
    give_in_at := clock_timestamp() + interval '500 ms';
    PERFORM set_config('lock_timeout', '500', true);
    PERFORM pg_advisory_xact_lock_shared(k.lock)
    FROM unnest(ARRAY(SELECT DISTINCT hashtextextended(E'clarion.publish\n' || r.name, 0) FROM unnest(resources) AS r (name) ORDER BY 1))
         AS k (lock);
    -- Under these locks no resource changes (registry/resources.py takes them alone).
    IF EXISTS (
        SELECT FROM unnest(resources, etags) AS g (name, etag)
        WHERE NOT EXISTS (SELECT FROM clarion.resources r
                          WHERE (r.name, r.etag) = (g.name, g.etag) AND r.table_name IS NULL
                            AND coalesce(r.organisation_id, organisation) = organisation)) THEN
        RAISE EXCEPTION 'publish: a resource is not as it was when the changes were checked' USING ERRCODE = 'CL002';
    END IF;
    FOR next_lock IN
        SELECT DISTINCT hashtextextended(concat_ws(E'\n', 'clarion.publish', resources[c.place], organisation_name, c.object_id), 0)
        FROM unnest(places, object_ids) AS c (place, object_id) ORDER BY 1
    LOOP
        IF NOT pg_try_advisory_xact_lock(next_lock) THEN
            PERFORM set_config('lock_timeout', greatest(ceil(extract(epoch FROM give_in_at - clock_timestamp()) * 1000), 1)::integer::text, true);
            PERFORM pg_advisory_xact_lock(next_lock);
        END IF;
    END LOOP;
    INSERT INTO clarion.outbox (organisation_id, resource, action, object_id, old, new, actor_id, actor_name, correlation_id)
    SELECT organisation, resources[c.place], c.action::"char", c.object_id, c.old, c.new, c.actor_id, c.actor_name, c.correlation_id
    FROM unnest(places, actions, object_ids, olds, news, actor_ids, actor_names, correlation_ids) WITH ORDINALITY
         AS c (place, action, object_id, old, new, actor_id, actor_name, correlation_id, number)
    ORDER BY c.number;
END $$;
COMMENT ON FUNCTION clarion.publish_changes IS
    'Changes of published resources, of the organisation that the transaction named. CL002: a resource is not as the caller knew it.';

CREATE FUNCTION clarion.is_listened_for(resource text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    organisation text := coalesce(current_setting('clarion.organisation_id', true), '');
    found boolean;
BEGIN
    -- Where one login is owner and API, it sees all rows as long as no organisation is named.
    PERFORM set_config('clarion.organisation_id', '', true);
    found := EXISTS (SELECT FROM clarion.subscriptions s WHERE s.resource = $1 AND s.deleted IS NULL);
    PERFORM set_config('clarion.organisation_id', organisation, true);
    RETURN found;
END $$;
COMMENT ON FUNCTION clarion.is_listened_for IS 'Whether a subscription of any organisation listens for a resource.';

-- ---------------------------------------------------------------- numbers

CREATE TABLE clarion.counters (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    position bigint NOT NULL,
    event_id bigint NOT NULL,
    queue_id bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO clarion.counters (position, event_id, queue_id) VALUES (0, 0, 0);

CREATE TABLE clarion.organisation_counters (
    organisation_id bigint PRIMARY KEY REFERENCES clarion.organisations,
    change_id bigint NOT NULL,
    link bytea NOT NULL CHECK (length(link) = 32)
) WITH (fillfactor = 20);

CREATE TABLE clarion.subscription_counters (
    subscription_id bigint PRIMARY KEY REFERENCES clarion.subscriptions,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    sequence bigint NOT NULL
) WITH (fillfactor = 20);

CREATE TABLE clarion.activations (
    subscription_id bigint NOT NULL REFERENCES clarion.subscriptions,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    from_position bigint NOT NULL,
    until_position bigint,
    condition text,
    fields text[],
    template text,
    PRIMARY KEY (subscription_id, from_position)
);
CREATE UNIQUE INDEX activations_open ON clarion.activations (subscription_id) WHERE until_position IS NULL;
COMMENT ON TABLE clarion.activations IS
    'From which position on, and before which, the router matched a subscription, and what it asked and showed then. Written by the router alone.';

CREATE TABLE clarion.evaluation_errors (
    subscription_id bigint PRIMARY KEY REFERENCES clarion.subscriptions,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    conditions_count bigint NOT NULL,
    templates_count bigint NOT NULL,
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_change_id bigint NOT NULL,
    last_message text NOT NULL
);
COMMENT ON TABLE clarion.evaluation_errors IS
    'Changes on which a subscription''s condition or template had no result, since it holds as it stands. Written by the router alone.';

CREATE TABLE clarion.router (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    backend_pid integer,
    beat_at timestamptz,
    ended_well boolean NOT NULL DEFAULT true,
    batch_ids bigint[],
    batch_deaths smallint NOT NULL DEFAULT 0,
    evaluating boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE clarion.router IS
    'Heartbeat of the one router; after a bad end also the rows it is about to evaluate, so that a row that kills it can be found.';
INSERT INTO clarion.router DEFAULT VALUES;

-- ---------------------------------------------------------------- ledger

CREATE TABLE clarion.ledger (
    position bigint NOT NULL,
    organisation_id bigint NOT NULL,
    change_id bigint NOT NULL,
    outbox_id bigint NOT NULL,
    half_of bigint,
    recorded_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL,
    captured_at timestamptz NOT NULL,
    xid xid8 NOT NULL,
    hops smallint,
    action "char" NOT NULL,
    resource text NOT NULL,
    object_id text NOT NULL,
    actor_id text,
    actor_name text,
    correlation_id text,
    link bytea NOT NULL,
    salt bytea,
    old text,
    new text,
    problem text,
    first_event_id bigint,
    events_count integer NOT NULL DEFAULT 0,
    PRIMARY KEY (position)
) PARTITION BY RANGE (position);
CREATE INDEX ledger_of_organisation ON clarion.ledger (organisation_id, change_id);
-- What a search needs for next to nothing: 0.5 % of the ledger's size, written when a range of pages is full, by autovacuum. The
-- position is there for searches within a span, and because the planner takes from it that rows lie in order.
CREATE INDEX ledger_search ON clarion.ledger USING brin (
    position int8_minmax_ops,
    object_id text_bloom_ops (n_distinct_per_range = 800, false_positive_rate = 0.005),
    correlation_id text_bloom_ops (n_distinct_per_range = 800, false_positive_rate = 0.005),
    resource text_bloom_ops (n_distinct_per_range = 32)
) WITH (pages_per_range = 64, autosummarize = on);
CREATE INDEX ledger_problems ON clarion.ledger (position) WHERE problem IS NOT NULL;
COMMENT ON TABLE clarion.ledger IS
    'Every change, numbered without gaps and chained by hash. Append-only; partitions are dropped by retention alone.';
COMMENT ON COLUMN clarion.ledger.first_event_id IS
    'The first of the events_count events that the change made when it was ledgered: their ids follow without gaps. Null: none.';
COMMENT ON COLUMN clarion.ledger.problem IS 'What of the row could not be read when it was captured, and what stands for it.';
COMMENT ON COLUMN clarion.ledger.half_of IS 'On the CREATE half of a change of key or organisation: outbox_id of its DELETE half.';

-- ---------------------------------------------------------------- delivery

CREATE TABLE clarion.queue (
    queue_id bigint PRIMARY KEY,
    event_id bigint NOT NULL,
    organisation_id bigint NOT NULL,
    receiver_id bigint NOT NULL,
    subscription_id bigint NOT NULL,
    position bigint NOT NULL,
    sequence bigint NOT NULL,
    lane bigint NOT NULL,
    due_at timestamptz,
    first_failed_at timestamptz,
    shard smallint NOT NULL,
    round smallint NOT NULL DEFAULT 0,
    attempts_count integer NOT NULL DEFAULT 0,
    spent_count integer NOT NULL DEFAULT 0,
    render_version smallint NOT NULL DEFAULT 1,
    fields text,
    body bytea,
    body_sha256 bytea
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
CREATE INDEX queue_of_receiver ON clarion.queue (receiver_id, queue_id);
CREATE INDEX queue_of_lane ON clarion.queue (receiver_id, lane, queue_id);
CREATE INDEX queue_of_organisation ON clarion.queue (organisation_id, event_id);
CREATE INDEX queue_again ON clarion.queue (event_id) WHERE round > 0;
COMMENT ON COLUMN clarion.queue.spent_count IS 'Attempts that count against the retry schedule; failures of our own do not.';
COMMENT ON TABLE clarion.queue IS 'Open events. Born in the router''s statement, ended in a settle.';

CREATE TABLE clarion.events (
    event_id bigint NOT NULL,
    round smallint NOT NULL,
    organisation_id bigint NOT NULL,
    receiver_id bigint NOT NULL,
    subscription_id bigint NOT NULL,
    position bigint NOT NULL,
    sequence bigint NOT NULL,
    settled_at timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN ('DELIVERED', 'FAILED', 'EXPIRED', 'CANCELLED')),
    reason text NOT NULL,
    attempts_count integer NOT NULL,
    render_version smallint NOT NULL,
    fields text,
    body bytea,
    body_sha256 bytea,
    PRIMARY KEY (event_id, round)
) PARTITION BY RANGE (event_id);
CREATE INDEX events_of_organisation ON clarion.events (organisation_id, event_id);
CREATE INDEX events_of_subscription ON clarion.events (organisation_id, subscription_id, event_id);
-- These two cost an event that is delivered at once nothing.
CREATE INDEX events_undelivered ON clarion.events (organisation_id, status, event_id) WHERE status <> 'DELIVERED';
CREATE INDEX events_again ON clarion.events (event_id, round) WHERE round > 0;
COMMENT ON TABLE clarion.events IS 'Settled events, append-only.';

CREATE TABLE clarion.attempts (
    event_id bigint NOT NULL,
    round smallint NOT NULL,
    number integer NOT NULL,
    organisation_id bigint NOT NULL,
    started_at timestamptz NOT NULL,
    duration_ms integer NOT NULL,
    status_code smallint,
    outcome text NOT NULL,
    response_headers text,
    response_body bytea,
    error text,
    source_address text,
    peer_address text,
    PRIMARY KEY (event_id, round, number)
) PARTITION BY RANGE (event_id);
COMMENT ON COLUMN clarion.attempts.response_headers IS 'JSON array of [name, value] in the order of the answer.';
COMMENT ON TABLE clarion.attempts IS 'One HTTP request made for an event, with its answer; append-only.';

CREATE TABLE clarion.commands (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    shard smallint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('CANCEL', 'RETRY_NOW')),
    event_id bigint NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE clarion.commands IS 'Orders to the owner of a shard; applied and deleted by the owner alone.';

CREATE TABLE clarion.receiver_health (
    receiver_id bigint PRIMARY KEY REFERENCES clarion.receivers,
    organisation_id bigint NOT NULL REFERENCES clarion.organisations,
    failing_since timestamptz NOT NULL,
    failed_count integer NOT NULL
);
COMMENT ON TABLE clarion.receiver_health IS
    'Receivers without one success since failing_since. Apart from the receivers: what happens to deliveries is no change of theirs.';

CREATE FUNCTION clarion.receiver_begins_anew() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM clarion.receiver_health WHERE receiver_id = NEW.id;
    RETURN NULL;
END $$;
-- Here and not in the worker alone: it may be switched off and on while no worker looks.
CREATE TRIGGER receiver_begins_anew AFTER UPDATE ON clarion.receivers FOR EACH ROW
    WHEN ((NEW.active AND NOT OLD.active) OR (NEW.deleted IS NOT NULL AND OLD.deleted IS NULL))
    EXECUTE FUNCTION clarion.receiver_begins_anew();

CREATE TABLE clarion.workers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    backend_pid integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    beat_at timestamptz NOT NULL DEFAULT now(),
    releases integer NOT NULL DEFAULT 0,
    ended_at timestamptz
);
COMMENT ON COLUMN clarion.workers.ended_at IS 'Set by a take-over before it touches the shards: the fence that refuses late settles.';
COMMENT ON COLUMN clarion.workers.releases IS 'How often the worker gave shards up; a settle made before the last time is refused.';

CREATE TABLE clarion.shards (
    shard smallint PRIMARY KEY CHECK (shard BETWEEN 0 AND 63),
    worker_id bigint REFERENCES clarion.workers
);
INSERT INTO clarion.shards (shard) SELECT generate_series(0, 63);

-- ---------------------------------------------------------------- partitions

CREATE FUNCTION clarion.ensure_partitions(width bigint DEFAULT 5000000, ahead integer DEFAULT 2) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parent text;
    reached bigint;
    slot bigint;
    child text;
    made integer := 0;
BEGIN
    -- Each process with maintenance calls this: who comes second finds the partitions made.
    PERFORM pg_advisory_xact_lock(hashtext('clarion.ensure_partitions'));
    FOREACH parent IN ARRAY ARRAY['ledger', 'events', 'attempts'] LOOP
        SELECT CASE parent WHEN 'ledger' THEN position ELSE event_id END / width INTO reached FROM clarion.counters;
        FOR slot IN reached..(reached + ahead) LOOP
            child := format('%s_%s', parent, slot);
            CONTINUE WHEN to_regclass(format('clarion.%I', child)) IS NOT NULL;
            EXECUTE format('CREATE TABLE clarion.%I (LIKE clarion.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
            EXECUTE format('ALTER TABLE clarion.%I ATTACH PARTITION clarion.%I FOR VALUES FROM (%L) TO (%L)',
                           parent, child, slot * width, (slot + 1) * width);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
COMMENT ON FUNCTION clarion.ensure_partitions IS
    'Makes partitions ahead of the counters; run by the owner. Attaching takes a lock that lets writers go on.';
SELECT clarion.ensure_partitions();

-- ---------------------------------------------------------------- who may do what

CREATE FUNCTION clarion.current_organisation_id() RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT nullif(current_setting('clarion.organisation_id', true), '')::bigint
$$;

CREATE FUNCTION clarion.columns_of(schema_name name, table_name name) RETURNS TABLE (name name, kind text)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE based AS (
        SELECT a.attname, a.attnum, a.atttypid AS type
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
          AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
        UNION ALL
        SELECT b.attname, b.attnum, t.typbasetype FROM based b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
    )
    SELECT b.attname, CASE
        WHEN t.typname IN ('int2', 'int4', 'int8') AND own THEN 'WHOLE'
        WHEN t.typname IN ('numeric', 'float4', 'float8') AND own THEN 'DECIMAL'
        WHEN t.typname = 'bool' AND own THEN 'TRUTH'
        WHEN t.typname IN ('json', 'jsonb') AND own OR t.typtype = 'c' THEN 'ANY'
        WHEN t.typcategory = 'A' THEN CASE WHEN t.typname IN ('int2vector', 'oidvector') AND own THEN 'ANY' ELSE 'LIST' END
        WHEN EXISTS (SELECT FROM pg_cast k WHERE k.castsource = t.oid AND k.casttarget = 'json'::regtype) THEN 'ANY'
        ELSE 'TEXT'
    END
    FROM based b JOIN pg_type t ON t.oid = b.type, LATERAL (SELECT t.typnamespace = 'pg_catalog'::regnamespace) AS o (own)
    WHERE t.typtype <> 'd' ORDER BY b.attnum
$$;
COMMENT ON FUNCTION clarion.columns_of IS
    'The columns of a table whose values a trigger sees, and what they are in a row''s JSON: TEXT, WHOLE, DECIMAL, TRUTH, LIST, ANY.';

CREATE FUNCTION clarion.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE of %.% would bypass its webhooks', quote_ident(TG_TABLE_SCHEMA), quote_ident(TG_TABLE_NAME)
        USING ERRCODE = 'insufficient_privilege', HINT = 'Use DELETE, or detach the table from Clarion first.';
END $$;

-- A row for the outbox when the trigger's own way to read it fails: a column was renamed, dropped or added since, its type
-- changed, a cast of the application's fails. Slow, and reads whatever can be read. Out: the key (empty if no column of it
-- is left), the organisation's name, the row as JSON, and what could not be read as it should, without any value.
-- `attached` is the table that was attached, which the numbers belong to; `relation` the one that holds the row.
-- Excluded are the columns of those names and those that were so named when the table was attached, whatever they are called now.
CREATE FUNCTION clarion.read_row(
    source anyelement, relation oid, attached oid, key_columns text[], key_numbers smallint[], excluded_columns text[],
    excluded_numbers smallint[], organisation_column text, organisation_number smallint,
    OUT object_id text, OUT organisation text, OUT data text, OUT problem text
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    hidden text[] := excluded_columns || ARRAY(
        SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = attached AND a.attnum = ANY (excluded_numbers) AND NOT a.attisdropped);
    present text[] := ARRAY(
        SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v' ORDER BY a.attnum);
    shown text[] := ARRAY(SELECT name FROM unnest(present) WITH ORDINALITY AS p (name, place) WHERE name <> ALL (hidden) ORDER BY place);
    name text;
    keys text[] := '{}';
    pieces text[] := '{}';
    piece text;
    problems text[] := '{}';
BEGIN
    FOR number IN 1 .. cardinality(key_columns) + (organisation_column IS NOT NULL)::integer LOOP
        piece := NULL;
        IF number <= cardinality(key_columns) THEN
            name := key_columns[number];
            IF name <> ALL (present) OR name = ANY (hidden) THEN
                name := (SELECT a.attname FROM pg_attribute a
                         WHERE a.attrelid = attached AND a.attnum = key_numbers[number] AND NOT a.attisdropped);
            END IF;
        ELSE
            name := coalesce((SELECT a.attname FROM pg_attribute a
                              WHERE a.attrelid = attached AND a.attnum = organisation_number AND NOT a.attisdropped),
                             CASE WHEN organisation_column <> ALL (hidden) THEN organisation_column END);
        END IF;
        IF name = ANY (present) THEN
            BEGIN
                EXECUTE format('SELECT ($1).%I::text', name) INTO piece USING source;
            EXCEPTION WHEN OTHERS OR assert_failure THEN
                BEGIN
                    -- As it is written out, which no cast has a part in.
                    EXECUTE format('SELECT format(''%%s'', ($1).%I)', name) INTO piece USING source;
                    problems := problems || format('%s: no cast to text (%s), its spelling is kept', name, SQLSTATE);
                EXCEPTION WHEN OTHERS OR assert_failure THEN
                    problems := problems || format('%s: not readable (%s)', name, SQLSTATE);
                END;
            END;
        ELSE
            problems := problems || format('%s: no such column', coalesce(key_columns[number], organisation_column));
        END IF;
        IF number <= cardinality(key_columns) THEN
            keys := keys || piece;
        ELSE
            organisation := piece;
        END IF;
    END LOOP;
    IF cardinality(keys) = 1 OR array_remove(keys, NULL) = '{}' THEN
        object_id := coalesce(keys[1], '');
    ELSE
        object_id := '[' || (SELECT string_agg(coalesce(to_json(k.value)::text, 'null'), ', ' ORDER BY k.place)
                             FROM unnest(keys) WITH ORDINALITY AS k (value, place)) || ']';
    END IF;
    BEGIN
        EXECUTE 'SELECT row_to_json(kept.*)::text FROM (SELECT '
            || coalesce((SELECT string_agg(format('($1).%I', s.name), ', ' ORDER BY s.place)
                         FROM unnest(shown) WITH ORDINALITY AS s (name, place)), '')
            || ') AS kept' INTO data USING source;
    EXCEPTION WHEN OTHERS OR assert_failure THEN
        FOREACH name IN ARRAY shown LOOP
            piece := NULL;
            BEGIN
                EXECUTE format('SELECT to_json(($1).%I)::text', name) INTO piece USING source;
            EXCEPTION WHEN OTHERS OR assert_failure THEN
                BEGIN
                    EXECUTE format('SELECT to_json(format(''%%s'', ($1).%I))::text', name) INTO piece USING source;
                    problems := problems || format('%s: not convertible to JSON (%s), its spelling is kept', name, SQLSTATE);
                EXCEPTION WHEN OTHERS OR assert_failure THEN
                    problems := problems || format('%s: not readable (%s)', name, SQLSTATE);
                END;
            END;
            pieces := pieces || (to_json(name)::text || ':' || coalesce(piece, 'null'));
        END LOOP;
        data := '{' || array_to_string(pieces, ',') || '}';
    END;
    problem := nullif(array_to_string(problems, '; '), '');
END $$;

CREATE FUNCTION clarion.abort_batch(reason text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = reason, ERRCODE = 'CL001';
END $$;
COMMENT ON FUNCTION clarion.abort_batch IS 'Ends a batch statement whose comparison failed, so that nothing of it stays.';

-- The router's wait: looks every so often, here, whether anything waits above an id or a retry is asked for, and returns with the
-- first, or when its time is over. A look by way of the router's process costs ten times as much. It returns, too, when a look takes
-- long (the router then learns what to pass over), and when a transaction has ended whose rows it passes over (`owners`).
-- All ids up to `decided` are: while no other is drawn there is nothing to look for, and that is asked in expressions, which cost no
-- executor. So with requests for retries while none was made since this began; one that commits long after it drew its id may wait
-- until the time is over.
-- Each statement in here has a snapshot of its own; the caller's holds vacuum back, so its time is to be short.
CREATE FUNCTION clarion.await_work(
    decided bigint, above bigint, owners bigint[], every_s double precision, at_most_s double precision
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    over timestamptz := clock_timestamp() + make_interval(secs => at_most_s);
    begun timestamptz;
    asked bigint := coalesce(pg_sequence_last_value('clarion.intake_id_seq'), 0);
BEGIN
    LOOP
        EXIT WHEN pg_sleep(every_s) IS NULL;
        begun := clock_timestamp();
        EXIT WHEN begun >= over;
        CONTINUE WHEN coalesce(pg_sequence_last_value('clarion.outbox_id'), 0) <= decided
                  AND coalesce(pg_sequence_last_value('clarion.intake_id_seq'), 0) = asked;
        EXIT WHEN EXISTS (SELECT FROM clarion.outbox o WHERE o.id > above)
            OR EXISTS (SELECT FROM clarion.intake i WHERE i.kind = 'RETRY')
            OR EXISTS (SELECT FROM unnest(owners) AS owner WHERE pg_visible_in_snapshot(owner::text::xid8, pg_current_snapshot()))
            OR clock_timestamp() > begun + interval '2 ms';
    END LOOP;
END $$;
COMMENT ON FUNCTION clarion.await_work IS 'Until something is committed that the router has to take, or the time is over.';

REVOKE ALL ON ALL TABLES IN SCHEMA clarion FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA clarion FROM PUBLIC;
GRANT USAGE ON SCHEMA clarion TO @engine@, @api@, @capture@;

GRANT INSERT ON clarion.outbox TO @capture@;
GRANT EXECUTE ON FUNCTION clarion.read_row(anyelement, oid, oid, text[], smallint[], text[], smallint[], text, smallint) TO @capture@;
GRANT USAGE ON SEQUENCE clarion.outbox_id TO @capture@;

GRANT SELECT ON ALL TABLES IN SCHEMA clarion TO @engine@;
REVOKE SELECT ON clarion.api_keys, clarion.idempotency_keys FROM @engine@;
GRANT EXECUTE ON FUNCTION clarion.abort_batch(text), clarion.await_work(bigint, bigint, bigint[], double precision, double precision),
    clarion.current_organisation_id() TO @engine@;
GRANT SELECT ON SEQUENCE clarion.outbox_id, clarion.intake_id_seq TO @engine@;
GRANT DELETE ON clarion.outbox, clarion.intake, clarion.commands TO @engine@;
GRANT UPDATE ON clarion.counters, clarion.router, clarion.shards TO @engine@;
GRANT INSERT, UPDATE ON clarion.organisation_counters, clarion.subscription_counters, clarion.activations, clarion.workers TO @engine@;
GRANT INSERT ON clarion.organisations, clarion.ledger, clarion.events, clarion.attempts TO @engine@;
GRANT INSERT, UPDATE, DELETE ON clarion.queue, clarion.receiver_health, clarion.evaluation_errors TO @engine@;
GRANT EXECUTE ON FUNCTION clarion.columns_of(name, name) TO @engine@, @api@;
GRANT UPDATE (active, disabled_reason, etag, updated) ON clarion.receivers TO @engine@;

GRANT EXECUTE ON FUNCTION clarion.current_organisation_id() TO @api@;
GRANT SELECT ON clarion.deployment, clarion.configuration, clarion.resources, clarion.organisations, clarion.clients,
    clarion.api_keys, clarion.history, clarion.receivers, clarion.headers, clarion.subscriptions, clarion.subscription_resources,
    clarion.activations, clarion.ledger, clarion.queue, clarion.events, clarion.attempts, clarion.receiver_health, clarion.evaluation_errors,
    clarion.alarms, clarion.break_glass TO @api@;
GRANT INSERT, UPDATE ON clarion.receivers, clarion.subscriptions TO @api@;
GRANT USAGE ON SEQUENCE clarion.receivers_id_seq TO @api@;
GRANT INSERT, UPDATE, DELETE ON clarion.headers TO @api@;
GRANT INSERT ON clarion.history, clarion.intake, clarion.commands TO @api@;
GRANT INSERT, UPDATE ON clarion.clients TO @api@;
GRANT INSERT ON clarion.api_keys TO @api@;
GRANT UPDATE (etag, expires, last_used, revoked, revoked_by_id) ON clarion.api_keys TO @api@;
GRANT SELECT, INSERT ON clarion.idempotency_keys TO @api@;
GRANT SELECT (id, public_key, created, signs_from, signs_until) ON clarion.signing_keys TO @api@;
GRANT SELECT, INSERT, DELETE ON clarion.egress_rules TO @api@;
GRANT SELECT, INSERT ON clarion.tests TO @api@;
GRANT INSERT (name, singular, description, key_columns, json_schema, created_by_id, updated_by_id),
    UPDATE (singular, description, json_schema, etag, updated, updated_by_id), DELETE ON clarion.resources TO @api@;
GRANT EXECUTE ON FUNCTION clarion.is_listened_for(text),
    clarion.publish_changes(text[], text[], integer[], text[], text[], text[], text[], text[], text[], text[]) TO @api@;

-- Row-level security on every table that holds an organisation's rows. The API sees the organisation that its
-- transaction named, and nothing if it named none; the engine works for all.
DO $$
DECLARE
    entry text;
BEGIN
    FOREACH entry IN ARRAY ARRAY['clients', 'api_keys', 'history', 'receivers', 'headers', 'subscriptions', 'subscription_resources', 'activations',
                                 'outbox', 'intake', 'commands', 'receiver_health', 'organisation_counters', 'subscription_counters', 'ledger', 'queue', 'events', 'attempts', 'egress_rules', 'tests', 'evaluation_errors',
                                 'idempotency_keys'] LOOP
        EXECUTE format('ALTER TABLE clarion.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', entry);
        EXECUTE format('CREATE POLICY owner_all ON clarion.%I TO @owner@ USING (true) WITH CHECK (true)', entry);
        EXECUTE format('CREATE POLICY engine_all ON clarion.%I TO @engine@ USING (true) WITH CHECK (true)', entry);
        EXECUTE format('CREATE POLICY api_own ON clarion.%I TO @api@ '
                       'USING (organisation_id = (SELECT clarion.current_organisation_id())) '
                       'WITH CHECK (organisation_id = (SELECT clarion.current_organisation_id()))', entry);
    END LOOP;
END $$;
ALTER TABLE clarion.organisations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON clarion.organisations TO @owner@ USING (true) WITH CHECK (true);
CREATE POLICY engine_all ON clarion.organisations TO @engine@ USING (true) WITH CHECK (true);
CREATE POLICY api_own ON clarion.organisations TO @api@ USING (id = (SELECT clarion.current_organisation_id()));
-- Whoever registers a receiver is told by the rules of all whether it may be sent to.
CREATE POLICY api_reads_all ON clarion.egress_rules FOR SELECT TO @api@ USING (true);
-- They hold for all: only the deployment's own organisation makes them.
CREATE POLICY api_of_the_deployment ON clarion.egress_rules AS RESTRICTIVE FOR INSERT TO @api@
    WITH CHECK (organisation_id = (SELECT id FROM clarion.organisations WHERE name = 'default'));
-- Names of resources are everybody's. Through the API, the deployment's own organisation registers and removes those without a
-- table; those that are attached are whose login attached them.
ALTER TABLE clarion.resources ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON clarion.resources TO @owner@ USING (true) WITH CHECK (true);
CREATE POLICY engine_all ON clarion.resources TO @engine@ USING (true) WITH CHECK (true);
CREATE POLICY api_reads_all ON clarion.resources FOR SELECT TO @api@ USING (true);
DO $$
DECLARE
    command text;
    published constant text := 'table_name IS NULL AND (SELECT clarion.current_organisation_id()) '
                               '= (SELECT id FROM clarion.organisations WHERE name = ''default'')';
BEGIN
    EXECUTE format('CREATE POLICY api_registers ON clarion.resources FOR INSERT TO @api@ '
                   'WITH CHECK (%s AND organisation_id IS NULL)', published);
    FOREACH command IN ARRAY ARRAY['UPDATE', 'DELETE'] LOOP
        EXECUTE format('CREATE POLICY api_%s_published ON clarion.resources FOR %s TO @api@ USING (%s)',
                       lower(command), command, published);
    END LOOP;
END $$;
CREATE POLICY capture_appends ON clarion.outbox FOR INSERT TO @capture@ WITH CHECK (true);

-- A key is looked up before the organisation is known: one function, one row, by the hash of the whole key.
CREATE FUNCTION clarion.client_of_key(key_hash bytea)
RETURNS TABLE (key_id bigint, client_id bigint, client_name text, client_kind text, client_role text, organisation_id bigint,
               readable_resources text[], publishable_resources text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.id, c.id, c.name, c.kind, c.role, c.organisation_id, c.readable_resources, c.publishable_resources
    FROM clarion.api_keys k JOIN clarion.clients c ON c.id = k.client_id
    WHERE k.hash = key_hash AND k.revoked IS NULL AND (k.expires IS NULL OR k.expires > clock_timestamp()) AND c.active
$$;
REVOKE ALL ON FUNCTION clarion.client_of_key(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION clarion.client_of_key(bytea) TO @api@;

-- The API notes the keys that were used, of whatever organisation, about once a minute: one statement, which only moves
-- forward. In the order of their ids, so that two processes that note the same keys wait for each other and go on.
CREATE FUNCTION clarion.note_keys_used(key_ids bigint[], ages_ms bigint[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH used AS (
        SELECT u.id, clock_timestamp() - u.age_ms * interval '1 millisecond' AS at FROM unnest(key_ids, ages_ms) AS u (id, age_ms)
    ), held AS (
        SELECT k.id, used.at FROM clarion.api_keys k JOIN used ON used.id = k.id
        WHERE k.last_used IS NULL OR k.last_used < used.at
        ORDER BY k.id FOR NO KEY UPDATE OF k
    )
    UPDATE clarion.api_keys k SET last_used = held.at FROM held WHERE k.id = held.id
$$;
REVOKE ALL ON FUNCTION clarion.note_keys_used(bigint[], bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION clarion.note_keys_used(bigint[], bigint[]) TO @api@;

-- The deployment's own organisation, `default`, looks after the others: it sees their names and makes new ones. While
-- these functions look or write no organisation is named, so that they can where one role stands in for four as well.
CREATE FUNCTION clarion.of_the_deployment() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own CONSTANT bigint := clarion.current_organisation_id();
    is_default boolean;
BEGIN
    IF own IS NULL THEN
        RETURN false;
    END IF;
    PERFORM set_config('clarion.organisation_id', '', true);
    is_default := EXISTS (SELECT FROM clarion.organisations o WHERE o.id = own AND o.name = 'default');
    PERFORM set_config('clarion.organisation_id', own::text, true);
    RETURN is_default;
END $$;
REVOKE ALL ON FUNCTION clarion.of_the_deployment() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION clarion.of_the_deployment() TO @api@;
CREATE POLICY api_of_the_deployment ON clarion.organisations FOR SELECT TO @api@ USING ((SELECT clarion.of_the_deployment()));

CREATE FUNCTION clarion.create_organisation(organisation_name text, administrator_name text, key_prefix text, key_hash bytea, made_by text)
RETURNS TABLE (made_organisation_id bigint, made_client_id bigint, made_client_etag text, made_key_id bigint, made_key_etag text,
               made_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own CONSTANT bigint := clarion.current_organisation_id();
BEGIN
    IF NOT clarion.of_the_deployment() THEN
        RAISE EXCEPTION 'only the deployment''s own organisation makes others' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM set_config('clarion.organisation_id', '', true);
    made_at := now();
    INSERT INTO clarion.organisations AS o (name) VALUES (organisation_name) ON CONFLICT (name) DO NOTHING
    RETURNING o.id INTO made_organisation_id;
    IF made_organisation_id IS NOT NULL THEN
        INSERT INTO clarion.clients AS c (organisation_id, name, kind, role)
        VALUES (made_organisation_id, administrator_name, 'MACHINE', 'ADMINISTRATOR')
        RETURNING c.id, c.etag INTO made_client_id, made_client_etag;
        INSERT INTO clarion.api_keys AS k (organisation_id, client_id, prefix, hash)
        VALUES (made_organisation_id, made_client_id, key_prefix, key_hash)
        RETURNING k.id, k.etag INTO made_key_id, made_key_etag;
        -- Who made it is no client of this organisation, so that the name must do.
        INSERT INTO clarion.history (organisation_id, client_name, action, object_type, object_id, after) VALUES
            (made_organisation_id, made_by, 'CREATE', 'Organisation', made_organisation_id::text,
             jsonb_build_object('name', organisation_name)),
            (made_organisation_id, made_by, 'CREATE', 'Client', made_client_id::text,
             jsonb_build_object('name', administrator_name, 'kind', 'MACHINE', 'role', 'ADMINISTRATOR', 'active', true,
                                'readableResources', NULL, 'publishableResources', '[]'::jsonb)),
            (made_organisation_id, made_by, 'CREATE', 'ApiKey', made_key_id::text,
             jsonb_build_object('clientId', made_client_id, 'prefix', key_prefix, 'expires', NULL, 'revoked', NULL));
        RETURN NEXT;
    END IF;
    PERFORM set_config('clarion.organisation_id', own::text, true);
END $$;
COMMENT ON FUNCTION clarion.create_organisation IS
    'A new organisation with its first administrator and the hash of its key; no row when the name is taken.';
REVOKE ALL ON FUNCTION clarion.create_organisation(text, text, text, bytea, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION clarion.create_organisation(text, text, text, bytea, text) TO @api@;

-- As client_of_key, for a key that opens nothing any more, so that the history of its organisation can tell of the attempt.
CREATE FUNCTION clarion.client_of_refused_key(key_hash bytea)
RETURNS TABLE (key_id bigint, client_id bigint, client_name text, client_kind text, client_role text, organisation_id bigint,
               reason text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.id, c.id, c.name, c.kind, c.role, c.organisation_id,
           CASE WHEN k.revoked IS NOT NULL THEN 'the API key was revoked'
                WHEN k.expires <= clock_timestamp() THEN 'the API key has expired'
                ELSE 'the client is not active' END
    FROM clarion.api_keys k JOIN clarion.clients c ON c.id = k.client_id
    WHERE k.hash = key_hash AND (k.revoked IS NOT NULL OR k.expires <= clock_timestamp() OR NOT c.active)
$$;
REVOKE ALL ON FUNCTION clarion.client_of_refused_key(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION clarion.client_of_refused_key(bytea) TO @api@;

-- One role in all four places (its login may not create roles): policies add up, so those of the owner and the engine
-- would show everything to the API. They hold only as long as no organisation is named.
DO $$
DECLARE
    entry text;
BEGIN
    IF $role$@owner@$role$ <> $role$@engine@$role$ THEN
        RETURN;
    END IF;
    FOR entry IN SELECT tablename FROM pg_policies WHERE schemaname = 'clarion' AND policyname = 'engine_all' LOOP
        EXECUTE format('DROP POLICY owner_all ON clarion.%I', entry);
        EXECUTE format('ALTER POLICY engine_all ON clarion.%I '
                       'USING (nullif(current_setting(''clarion.organisation_id'', true), '''') IS NULL) '
                       'WITH CHECK (nullif(current_setting(''clarion.organisation_id'', true), '''') IS NULL)', entry);
    END LOOP;
END $$;
