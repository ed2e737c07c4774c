-- The delivery worker's statements.

-- name: event
-- A queue row with its change, in the order of the fields of Event and Change: they are made from it by position, after two
-- columns of the statement's own. The change's moments are seconds since 1970, exact to the microsecond until 2242: the driver takes longer
-- to make two timestamps than all the other columns.
q.queue_id, q.event_id, q.round, q.organisation_id, q.receiver_id, q.subscription_id, q.sequence, q.lane,
       q.attempts_count, q.spent_count, q.due_at, q.first_failed_at, q.body_sha256, q.render_version, q.fields, q.body,
       l.position, l.change_id, l.resource, l.action::text AS action, l.object_id,
       date_part('epoch', l.occurred_at) AS occurred_at, date_part('epoch', l.recorded_at) AS recorded_at,
       l.actor_id, l.actor_name, l.correlation_id, l.old, l.new

-- name: look
-- In front of the rows, from the same snapshot: the version of the configuration, which the engine must know before it is
-- told of rows that the router made under it, and the last queue id that is committed: the router moves it with the rows.
(SELECT (SELECT version FROM clarion.configuration) AS version, (SELECT queue_id FROM clarion.counters) AS last_queue_id) AS look

-- name: load_tail
-- New rows of owned shards with their changes. In: shards, last queue id, receivers to leave out, limit.
-- Out: one row at least; its queue id is null if there is nothing new. Index: queue_pkey, ledger's partitions by position.
SELECT look.*, e.* FROM {look} LEFT JOIN LATERAL (
    SELECT {event}
    FROM clarion.queue q JOIN clarion.ledger l ON l.position = q.position
    WHERE q.shard = ANY ($1::smallint[]) AND q.queue_id > $2 AND q.receiver_id <> ALL ($3::bigint[])
    ORDER BY q.queue_id LIMIT $4
) AS e ON true;

-- name: load_receiver
-- Further rows of one receiver, as `load_tail`. In: receiver, last queue id, limit. Index: queue_of_receiver, which is the only
-- one that has this order; were the receiver merely equal, the rows of all could be read in the order of their ids.
SELECT look.*, e.* FROM {look} LEFT JOIN LATERAL (
    SELECT {event}
    FROM clarion.queue q JOIN clarion.ledger l ON l.position = q.position
    WHERE (q.receiver_id, q.queue_id) > ($1::bigint, $2::bigint) AND q.receiver_id <= $1
    ORDER BY q.receiver_id, q.queue_id LIMIT $3
) AS e ON true;

-- name: load_commands
-- Orders to the owner of these shards with the rows of their events, null where an event is not open any more.
-- In: shards, ids of the orders already taken. Index: queue_of_organisation.
SELECT c.id AS command_id, c.kind, {event}
FROM clarion.commands c
LEFT JOIN clarion.queue q ON q.event_id = c.event_id AND q.organisation_id = c.organisation_id
LEFT JOIN clarion.ledger l ON l.position = q.position
WHERE c.shard = ANY ($1::smallint[]) AND c.id <> ALL ($2::bigint[])
ORDER BY c.id LIMIT $3;

-- name: load_lane
-- Further rows of one lane, as `load_tail`. In: receiver, lane, above which and up to which queue id, limit.
-- Index: queue_of_lane, by its order likewise.
SELECT look.*, e.* FROM {look} LEFT JOIN LATERAL (
    SELECT {event}
    FROM clarion.queue q JOIN clarion.ledger l ON l.position = q.position
    WHERE (q.receiver_id, q.lane, q.queue_id) > ($1::bigint, $2::bigint, $3::bigint)
      AND (q.receiver_id, q.lane, q.queue_id) <= ($1, $2, $4::bigint)
    ORDER BY q.receiver_id, q.lane, q.queue_id LIMIT $5
) AS e ON true;

-- name: fence
-- The worker's own row: a take-over ends that row before it touches anything else, and a release of shards counts it up, so
-- that a settle made before is refused and can never meet a row that another worker owns.
fence AS (
    SELECT id FROM clarion.workers WHERE id = $1 AND ended_at IS NULL AND releases = $2::integer FOR SHARE
)

-- name: given
-- The rows: what each has for itself, its place among them, and what it has in common with others.
unnest($6::text::bigint[], $7::text::integer[], $8::text::integer[], $9::text::timestamptz[])
    WITH ORDINALITY AS n (queue_id, kind_place, duration_ms, started_at, place),
LATERAL (SELECT $3::jsonb -> n.kind_place AS kind) AS k

-- name: told
-- What a row's kind says, by the names of the columns; in the order in which `_kind` gives it.
LATERAL (
    SELECT kind ->> 0 AS status, kind ->> 1 AS reason, (kind ->> 2)::timestamptz AS due_at, (kind ->> 3)::integer AS spent_count,
           (kind ->> 4)::timestamptz AS first_failed_at, (kind ->> 5)::integer AS attempts_count,
           CASE WHEN (kind ->> 6)::boolean THEN substr($5::bytea, (place::integer - 1) * 32 + 1, 32) END AS body_sha256,
           (kind ->> 7)::smallint AS status_code, kind ->> 8 AS outcome, kind ->> 9 AS response_headers,
           substr($4::bytea, (kind ->> 10)::integer, (kind ->> 11)::integer) AS response_body,
           kind ->> 12 AS error, kind ->> 13 AS source_address, kind ->> 14 AS peer_address
) AS told

-- name: attempted
-- The attempts of these rows, for INSERT. A row may be settled without one.
(event_id, round, number, organisation_id, started_at, duration_ms, status_code, outcome,
 response_headers, response_body, error, source_address, peer_address)
SELECT event_id, round, attempts_count, organisation_id, started_at, duration_ms, status_code, outcome,
       response_headers, response_body, error, source_address, peer_address

-- name: ended
-- The first $10 rows leave the queue. They are found by their keys, which stand there twice so that it is by the index whatever
-- the planner believes the table to hold. What was ended before is not found, so that nothing of it is stored again; and an
-- attempt that ends its event cannot be there before it, because its number is above all that were stored while the row was there.
ended AS (
    DELETE FROM clarion.queue q USING fence, {given}
    WHERE q.queue_id = n.queue_id AND q.queue_id = ANY ($6::text::bigint[]) AND n.place <= $10
    RETURNING q.event_id, q.round, q.organisation_id, q.receiver_id, q.subscription_id, q.position, q.sequence,
              q.render_version, q.fields, q.body, n.place, n.started_at, n.duration_ms, k.kind
), recorded AS (
    INSERT INTO clarion.events (event_id, round, organisation_id, receiver_id, subscription_id, position, sequence, settled_at,
                                status, reason, attempts_count, render_version, fields, body, body_sha256)
    SELECT event_id, round, organisation_id, receiver_id, subscription_id, position, sequence, clock_timestamp(),
           status, reason, attempts_count, render_version, fields, body, body_sha256
    FROM ended, {told}
), attempted AS (
    INSERT INTO clarion.attempts {attempted}
    FROM ended, {told} WHERE outcome IS NOT NULL
)

-- name: verdict
SELECT CASE WHEN EXISTS (SELECT FROM fence) THEN 0 ELSE clarion.abort_batch('fenced: this worker or its shards were taken over') END

-- name: settle_ended
-- Attempts stored and ended events moved to history; whole or not at all. Safe to repeat after an answer was lost.
-- Encoding arrays was most of what a settle cost the worker, and copying their elements a good part of what it cost the
-- session. Most rows are alike but for a few numbers, so what they have in common travels once, and the numbers as text.
-- In: worker, its releases; the kinds of rows, an array each; the bodies that they point to, in one piece, as the hashes (32
-- bytes for each row) are; the rows' queue ids, kinds (counted from 0), durations, starts; how many of the rows end.
-- Index: queue_pkey.
WITH {fence}, {ended}
{verdict};

-- name: settle
-- The same, and the rows that do not end are given their next time, and orders ($11) that are carried out deleted.
-- Apart, because most batches have neither.
WITH {fence}, {ended}, postponed AS (
    UPDATE clarion.queue q
    SET due_at = told.due_at, attempts_count = told.attempts_count, spent_count = told.spent_count,
        first_failed_at = told.first_failed_at, body_sha256 = told.body_sha256
    FROM fence, {given}, {told}
    WHERE q.queue_id = n.queue_id AND q.queue_id = ANY ($6::text::bigint[]) AND n.place > $10
      -- One that a lost session comes to late must not count attempts down: their numbers would be used once more.
      AND q.attempts_count <= told.attempts_count
    RETURNING q.event_id, q.round, q.organisation_id, n.place, n.started_at, n.duration_ms, k.kind
), attempted_again AS (
    INSERT INTO clarion.attempts {attempted}
    FROM postponed, {told} WHERE outcome IS NOT NULL
    -- A settle that is repeated finds the row again, and its attempt stored. To ask it of the rows that end would cost 2 us each.
    ON CONFLICT DO NOTHING
), obeyed AS (
    DELETE FROM clarion.commands c USING fence WHERE c.id = ANY ($11::text::bigint[])
)
{verdict};

-- name: configuration_version
SELECT version FROM clarion.configuration;

-- name: receivers
-- Live receivers with their sealed secrets and headers.
SELECT r.id, r.organisation_id, r.webhook_uri, r.content_type, r.expected_response_code, r.active, r.inactive_since, r.retry_schedule,
       r.timeout_seconds, r.concurrency, r.rate_limit_per_second, r.ordering, r.lane_block_max_seconds, r.readable_resources, r.signatures,
       r.shared_secret_sealed, r.ca_certificates, r.client_certificate, r.client_key_sealed, r.previous_secret_until,
       CASE WHEN r.previous_secret_until > now() THEN r.previous_secret_sealed END AS previous_secret_sealed,
       coalesce((SELECT array_agg(h.key ORDER BY h.id) FROM clarion.headers h WHERE h.receiver_id = r.id), '{}') AS header_keys,
       coalesce((SELECT array_agg(h.value_sealed ORDER BY h.id) FROM clarion.headers h WHERE h.receiver_id = r.id), '{}')
           AS header_values_sealed
FROM clarion.receivers r WHERE r.deleted IS NULL;

-- name: signing_keys
-- Keys that sign now or will, the latest first.
SELECT public_key, private_key_sealed, signs_from, signs_until FROM clarion.signing_keys
WHERE signs_until IS NULL OR signs_until > greatest(signs_from, now()) ORDER BY signs_from DESC, id DESC;

-- name: subscriptions
SELECT id, expires_after_seconds FROM clarion.subscriptions WHERE deleted IS NULL;

-- name: egress_rules
-- In: environment.
SELECT host, network, port FROM clarion.egress_rules WHERE environment = $1 ORDER BY id;

-- name: disable
-- In: receiver, reason. A receiver that its owner paused meanwhile keeps that reason.
UPDATE clarion.receivers
SET active = false, disabled_reason = $2, etag = replace(gen_random_uuid()::text, '-', ''), updated = clock_timestamp()
WHERE id = $1 AND active;

-- name: load_failing
-- Live receivers that fail: few, whatever the number of receivers.
SELECT h.receiver_id, h.failing_since, h.failed_count
FROM clarion.receiver_health h JOIN clarion.receivers r ON r.id = h.receiver_id WHERE r.deleted IS NULL;

-- name: remember
-- Which receivers fail, and (null) which do not any more. In: worker, receivers, since when, how many failures.
-- A worker that was ended stores nothing: its receivers are another's.
WITH fence AS (
    SELECT id FROM clarion.workers WHERE id = $1 AND ended_at IS NULL FOR SHARE
), told AS (
    SELECT n.receiver_id, n.failing_since, n.failed_count
    FROM fence, unnest($2::bigint[], $3::timestamptz[], $4::integer[]) AS n (receiver_id, failing_since, failed_count)
), well AS (
    DELETE FROM clarion.receiver_health h USING told t WHERE h.receiver_id = t.receiver_id AND t.failing_since IS NULL
)
INSERT INTO clarion.receiver_health (receiver_id, organisation_id, failing_since, failed_count)
SELECT r.id, r.organisation_id, t.failing_since, t.failed_count
FROM told t JOIN clarion.receivers r ON r.id = t.receiver_id
WHERE t.failing_since IS NOT NULL AND r.deleted IS NULL
ON CONFLICT (receiver_id) DO UPDATE SET failing_since = excluded.failing_since, failed_count = excluded.failed_count;

-- name: join
-- A new worker with its session lock, which is held before the row can be seen. In: name. Out: id, releases.
WITH mine AS (
    INSERT INTO clarion.workers (name, backend_pid) VALUES ($1, pg_backend_pid()) RETURNING id, releases
)
SELECT id, releases FROM mine WHERE pg_try_advisory_lock(1129071955, id::integer);

-- name: lock
-- In: worker. Whether this session holds the worker's lock now.
SELECT pg_try_advisory_lock(1129071955, $1::integer);

-- name: is_a_lock
-- Whether a row of pg_locks is a worker's lock, held.
l.locktype = 'advisory' AND l.classid = 1129071955 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: holder
-- In: worker. Session that holds its lock.
SELECT l.pid FROM pg_locks l
WHERE {is_a_lock} AND l.objid = $1::bigint::oid;

-- name: rejoin
-- The worker goes on with this session. In: worker. Out: releases; no row if the worker was ended.
UPDATE clarion.workers SET backend_pid = pg_backend_pid(), beat_at = clock_timestamp()
WHERE id = $1 AND ended_at IS NULL RETURNING id, releases;

-- name: beat
-- In: worker. Out: the database's clock; no row if the worker was ended.
UPDATE clarion.workers SET beat_at = clock_timestamp() WHERE id = $1 AND ended_at IS NULL RETURNING beat_at;

-- name: dead
-- Of other workers those whose lock nobody holds, or whose last heartbeat is $2 seconds older than this worker's: while the server stands
-- still, nobody's is stored. In: this worker, seconds, whether anybody is to be taken for dead now.
w.ended_at IS NULL AND w.id <> $1 AND $3::boolean
  AND (w.beat_at < (SELECT beat_at FROM clarion.workers WHERE id = $1) - make_interval(secs => $2)
       OR NOT EXISTS (SELECT FROM pg_locks l
                      WHERE {is_a_lock} AND l.objid = w.id::oid))

-- name: fence_dead
-- Ends the rows of dead workers, which waits for their settles under way and refuses all later ones. Before their shards are
-- touched. In: as `dead`. Out: their sessions.
UPDATE clarion.workers w SET ended_at = clock_timestamp()
WHERE {dead}
RETURNING w.id, w.backend_pid;

-- name: free
-- Shards of ended workers, whoever ended them.
UPDATE clarion.shards s SET worker_id = NULL FROM clarion.workers w WHERE w.id = s.worker_id AND w.ended_at IS NOT NULL;

-- name: shares
-- Live workers, each shard's owner as JSON, and whether one of the workers is dead, of one moment: an owner that is not among the workers has
-- ended, and did not just join. In: as `dead`.
SELECT ARRAY(SELECT id FROM clarion.workers WHERE ended_at IS NULL) AS workers,
       (SELECT json_object_agg(shard, worker_id)::text FROM clarion.shards) AS owners,
       EXISTS (SELECT FROM clarion.workers w WHERE {dead}) AS any_dead;

-- name: claim
-- Those of the shards that are free. In: worker, shards. Out: what it got.
WITH fence AS (
    SELECT id FROM clarion.workers WHERE id = $1 AND ended_at IS NULL FOR SHARE
)
UPDATE clarion.shards s SET worker_id = fence.id FROM fence
WHERE s.shard = ANY ($2::smallint[]) AND s.worker_id IS NULL RETURNING s.shard;

-- name: release
-- Gives up shards, and with the new number refuses settles that were made before. In: worker, shards. Out: releases.
WITH mine AS (
    UPDATE clarion.workers SET releases = releases + 1 WHERE id = $1 AND ended_at IS NULL RETURNING id, releases
), given AS (
    UPDATE clarion.shards s SET worker_id = NULL FROM mine WHERE s.worker_id = mine.id AND s.shard = ANY ($2::smallint[])
)
SELECT releases FROM mine;

-- name: leave
UPDATE clarion.workers SET ended_at = clock_timestamp() WHERE id = $1 AND ended_at IS NULL;

-- name: end_session
SELECT pg_terminate_backend($1);

-- name: incarnation
SELECT incarnation FROM clarion.deployment;
