-- The rows of a long life, as router and workers leave them. {changes}, {settled}: how many changes there are, and of how many the events are
-- settled; {width}, {partitions}: positions and event ids in a partition, partitions. Statements end with a line of dashes.

-- A number's hash, to choose by it again and again in the same way.
CREATE FUNCTION pg_temp.mixed(n numeric) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT ((n * 2654435761 + 12345) % 4294967296)::bigint'
--------
-- Organisations, resources, receivers (30 of the large organisation have events: the seventh always fails, the ninth is not active; 2,000 have none),
-- subscriptions, clients, keys and the history.
INSERT INTO clarion.organisations (name) VALUES ('large'), ('small');
INSERT INTO clarion.organisations (name) SELECT 'middle ' || n FROM generate_series(1, 8) n;
INSERT INTO clarion.resources (name, description, schema_name, table_name, key_columns)
    SELECT r, r, 'public', lower(r), '{id}' FROM unnest(ARRAY['RUNS', 'RUN_STEPS', 'ISSUES', 'PARTS', 'LOCATIONS']) r;
INSERT INTO clarion.receivers (organisation_id, name, webhook_uri, shared_secret_sealed, shared_secret_hint, active, disabled_reason)
    SELECT o.id, 'receiver ' || n, 'https://receiver' || n || '.example/', '\x00', 'hint', n <> 9, CASE n WHEN 9 THEN 'MANUAL' END
    FROM clarion.organisations o, generate_series(1, 30) n WHERE o.name = 'large' OR n <= 2;
INSERT INTO clarion.subscriptions (organisation_id, receiver_id, resource, action)
    SELECT r.organisation_id, r.id, resource, action FROM clarion.receivers r,
        unnest(ARRAY['RUNS', 'RUN_STEPS', 'ISSUES', 'PARTS']) resource, unnest(ARRAY['CREATE', 'UPDATE', 'DELETE']) action
    ORDER BY 1, 2, 3, 4;
INSERT INTO clarion.receivers (organisation_id, name, webhook_uri, shared_secret_sealed, shared_secret_hint, active, disabled_reason)
    SELECT o.id, 'further ' || n, 'https://further' || n || '.example/', '\x00', 'hint', n % 10 > 0, CASE n % 10 WHEN 0 THEN 'MANUAL' END
    FROM clarion.organisations o, generate_series(1, 2000) n WHERE o.name = 'large';
INSERT INTO clarion.subscriptions (organisation_id, receiver_id, resource, action)
    SELECT r.organisation_id, r.id, 'LOCATIONS', 'UPDATE' FROM clarion.receivers r, generate_series(1, 5)
    WHERE name LIKE 'further %';
INSERT INTO clarion.clients (organisation_id, name, kind, role)
    SELECT id, 'client ' || n, 'MACHINE', 'INTEGRATOR' FROM clarion.organisations, generate_series(1, 1000) n WHERE name = 'large';
INSERT INTO clarion.api_keys (organisation_id, client_id, prefix, hash, revoked)
    SELECT c.organisation_id, c.id, 'clk_' || c.id || '_' || n, sha256((c.id || '/' || n)::bytea), CASE n WHEN 3 THEN now() END
    FROM clarion.clients c, generate_series(1, 3) n WHERE c.name LIKE 'client %';
INSERT INTO clarion.history (organisation_id, at, client_id, client_name, action, object_type, object_id, refusal, message)
    SELECT o.id, timestamptz '2026-01-01T00:00:00Z' + n * interval '1 minute', n % 1000 + 1, 'client', CASE n % 5000 WHEN 0 THEN 'REVEAL' ELSE 'UPDATE' END,
           'WebhookReceiver', (n % 2000 + 1)::text, CASE n % 1000 WHEN 1 THEN 'FORBIDDEN' END, CASE n % 1000 WHEN 1 THEN 'no' END
    FROM clarion.organisations o, generate_series(1, 200000) n WHERE o.name = 'large'
--------
-- The partitions of a deployment some years old, in small.
DO $$ DECLARE child regclass; BEGIN
    FOR child IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent IN ('clarion.ledger'::regclass, 'clarion.events'::regclass, 'clarion.attempts'::regclass)
    LOOP EXECUTE format('DROP TABLE %s', child); END LOOP;
END $$;
SELECT clarion.ensure_partitions({width}, {partitions})
--------
-- What changes there are to be: 70 % RUNS, 29 % RUN_STEPS, 1 % ISSUES, 0.01 % PARTS; 1 % of one object; with no, one or two events each.
CREATE UNLOGGED TABLE plan AS
SELECT p AS position, o.id AS organisation_id, row_number() OVER (PARTITION BY o.id ORDER BY p) AS change_id, resource, action, object_id,
       count, sum(count) OVER (ORDER BY p) - count + 1 AS first_event_id
FROM generate_series(1, {changes}::bigint) p
CROSS JOIN LATERAL (SELECT pg_temp.mixed(p) % 10000 AS a, pg_temp.mixed(p + 77) % 1000000 AS b, pg_temp.mixed(p * 3 + 5) % 100000 AS c) AS mixed
JOIN clarion.organisations o ON o.name = CASE WHEN p % 12000 = 49 THEN 'small' WHEN p % 50 BETWEEN 1 AND 8 THEN 'middle ' || p % 50 ELSE 'large' END
CROSS JOIN LATERAL (SELECT
    CASE WHEN a = 0 THEN 'PARTS' WHEN a < 100 THEN 'ISSUES' WHEN a < 3000 THEN 'RUN_STEPS' ELSE 'RUNS' END AS resource,
    CASE WHEN b % 100 = 0 THEN 'd' WHEN b % 100 < 20 THEN 'c' ELSE 'u' END AS action,
    CASE WHEN b % 97 = 0 THEN 'hot' ELSE c::text END AS object_id,
    CASE p % 10 WHEN 0 THEN 0 WHEN 1 THEN 2 ELSE 1 END AS count) AS chosen
--------
ANALYZE plan
--------
-- The changes.
INSERT INTO clarion.ledger (position, organisation_id, change_id, outbox_id, recorded_at, occurred_at, captured_at, xid, action, resource,
                            object_id, actor_id, actor_name, correlation_id, link, salt, old, new, first_event_id, events_count)
SELECT position, organisation_id, change_id, position, m, m, m, '1', action, resource, object_id, '17', 'operator 17', 'tx-' || position / 5,
       decode(repeat('00', 32), 'hex'), decode(repeat('00', 16), 'hex'), repeat('x', 250), repeat('x', 250),
       CASE WHEN count > 0 THEN first_event_id END, count
FROM plan, LATERAL (SELECT timestamptz '2026-01-01T00:00:00Z' + position * interval '1 second') AS moment (m) ORDER BY position
--------
-- Their events, each for a receiver by chance.
CREATE UNLOGGED TABLE made AS
WITH listening AS MATERIALIZED (
    SELECT s.organisation_id, s.resource, lower(left(s.action, 1)) AS action, r.id AS receiver_id, s.id AS subscription_id, r.active, number
    FROM clarion.subscriptions s JOIN clarion.receivers r ON r.id = s.receiver_id, substr(r.name, 10) AS number WHERE r.name LIKE 'receiver %'
)
SELECT first_event_id + n AS event_id, position, p.organisation_id, receiver_id, subscription_id, active, number,
       pg_temp.mixed(first_event_id + n + 13) % 100000 AS luck, pg_temp.mixed(position) AS lane
FROM plan p CROSS JOIN LATERAL generate_series(0, count - 1) n
JOIN listening l ON l.organisation_id = p.organisation_id AND l.resource = p.resource AND l.action = p.action
    AND l.number = ((pg_temp.mixed(position + n) / 7) % (CASE WHEN p.organisation_id = (SELECT id FROM clarion.organisations WHERE name = 'large') THEN 30 ELSE 2 END) + 1)::text
--------
ANALYZE made
--------
-- Those that are settled, some sent again.
INSERT INTO clarion.events (event_id, round, organisation_id, receiver_id, subscription_id, position, sequence, settled_at, status, reason,
                            attempts_count, render_version, body_sha256)
SELECT event_id, round, organisation_id, receiver_id, subscription_id, position, event_id, timestamptz '2026-01-01T00:01:00Z' + position * interval '1 second',
       status, CASE status WHEN 'DELIVERED' THEN 'SUCCEEDED' ELSE 'SCHEDULE_EXHAUSTED' END, 1, 1, sha256(event_id::text::bytea)
FROM made CROSS JOIN LATERAL (
    SELECT 0 AS round, CASE WHEN luck < 100 THEN 'FAILED' WHEN number = '7' AND luck > 110 THEN 'FAILED' WHEN luck < 600 THEN 'FAILED'
                            WHEN luck < 650 THEN 'EXPIRED' WHEN luck < 655 THEN 'CANCELLED' ELSE 'DELIVERED' END AS status
    UNION ALL SELECT 1, 'DELIVERED' WHERE luck < 90
) AS rounds
WHERE active AND position <= {settled} ORDER BY event_id
--------
-- Those that are open.
INSERT INTO clarion.queue (queue_id, event_id, round, organisation_id, receiver_id, subscription_id, position, sequence, lane, shard)
SELECT row_number() OVER (ORDER BY round, event_id), event_id, round, organisation_id, receiver_id, subscription_id, position, event_id, lane, receiver_id % 64
FROM made CROSS JOIN LATERAL (
    SELECT 0 AS round WHERE NOT active OR position > {settled}
    UNION ALL SELECT 1 WHERE active AND position <= {settled} AND luck BETWEEN 90 AND 99
) AS rounds ORDER BY 1
--------
-- An attempt for each settled round.
INSERT INTO clarion.attempts (event_id, round, number, organisation_id, started_at, duration_ms, outcome, status_code)
SELECT event_id, round, 1, organisation_id, settled_at, 12, 'SUCCEEDED', 200 FROM clarion.events ORDER BY event_id
--------
UPDATE clarion.counters SET position = {changes}, event_id = (SELECT max(event_id) FROM made), queue_id = 100000000
--------
DROP TABLE plan, made
--------
VACUUM ANALYZE
