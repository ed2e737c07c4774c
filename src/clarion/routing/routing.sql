-- The router's statements. All run on the connection that holds the router's lock.

-- name: correlation
-- A row's correlation id; where the application gave none, its transaction: the number, and the incarnation, because a restored
-- database counts them again. Here and not in the trigger, whose time is the application's.
coalesce(o.correlation_id, 'tx-' || (SELECT incarnation FROM clarion.deployment) || '-' || o.xid::text) AS correlation_id

-- name: captured
-- A row of the outbox, in the order of the fields of Captured: it is made from it by position.
o.id, o.organisation_id, o.organisation, o.resource, o.action::text AS action, o.object_id, o.xid::text::bigint AS xid, o.depth,
       o.relation::text || o.old_ctid::text AS old_ctid, o.relation::text || o.new_ctid::text AS new_ctid,
       o.actor_id, o.actor_name, {correlation}, o.old, o.new, o.half_of

-- name: last_drawn
-- The last id drawn; a sequence of which nothing was drawn has a last value, too.
(SELECT last_value - (NOT is_called)::integer FROM clarion.outbox_id)

-- name: waiting
-- One look: the clock, what decides where the next look begins, whether anybody asks for a retry, and the lowest committed
-- rows above the floor; or above the hidden rows, if all of their owners still run in this very snapshot.
-- In: floor, limit, last hidden id, owners. Out: first the look, without a row, then the rows, without a look: a moment in each row
-- would be a third of what it takes to read them. Index: outbox_pkey.
WITH beginning AS (
    SELECT $3::bigint > $1::bigint AND cardinality($4::text::bigint[]) > 0 AND NOT EXISTS (
        SELECT FROM unnest($4::text::bigint[]) AS owner
        WHERE pg_visible_in_snapshot(owner::text::xid8, pg_current_snapshot())
    ) AS is_above
)
SELECT clock_timestamp(), pg_current_snapshot()::text, (SELECT is_above FROM beginning),
       {last_drawn}, EXISTS (SELECT FROM clarion.intake WHERE kind = 'RETRY'),
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
UNION ALL
(SELECT NULL, NULL, NULL, NULL, NULL, {captured}
 FROM clarion.outbox o
 WHERE o.id > CASE WHEN (SELECT is_above FROM beginning) THEN $3 ELSE $1 END ORDER BY o.id LIMIT $2);

-- name: await_work
-- Until there may be something to take. In: floor, the id above which `waiting` would begin, the owners of hidden rows below it, seconds
-- between two looks, seconds at most.
SELECT clarion.await_work($1, $2, $3::text::bigint[], $4, $5);

-- name: transaction_number
SELECT pg_current_xact_id()::text::bigint;

-- name: waiting_by_id
-- The rows of these ids that wait, in the order of the ids. In: ids. Only after a router died. Index: outbox_pkey.
SELECT {captured}
FROM clarion.outbox o WHERE o.id = ANY ($1::bigint[]) ORDER BY array_position($1::bigint[], o.id);

-- name: waiting_of_others
-- The same, without some organisations (by id, by name). In: floor, limit, ids, names. Scans past their rows.
SELECT {captured}
FROM clarion.outbox o
WHERE o.id > $1 AND (o.organisation_id = ANY ($3::bigint[])) IS NOT TRUE AND (o.organisation = ANY ($4::text[])) IS NOT TRUE
ORDER BY o.id LIMIT $2;

-- name: predecessors
-- Rows that ended where a nested row of the same transaction and object started, though drawn after it.
-- In: lowest id, xids, resources, object ids, places. Rare: only after a full batch with nested rows.
SELECT {captured}
FROM clarion.outbox o
JOIN unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) AS wanted (xid, resource, object_id, place)
  ON o.xid = wanted.xid::text::xid8 AND o.resource = wanted.resource AND o.object_id = wanted.object_id
 AND o.relation::text || o.new_ctid::text = wanted.place
WHERE o.id > $1;

-- name: other_halves
-- The CREATE halves of these DELETE halves. In: ids. After a full batch that ends in DELETEs. Index: outbox_halves.
SELECT {captured}
FROM clarion.outbox o WHERE o.half_of = ANY ($1::bigint[]);

-- name: counted
-- Of a batch: the counters moved by compare-and-set, and the configuration's version compared.
moved AS (
    UPDATE clarion.counters SET position = $4, event_id = $5, queue_id = $6
    WHERE position = $1 AND event_id = $2 AND queue_id = $3
      AND (SELECT version FROM clarion.configuration) = $7
    RETURNING 1
), tails AS (
    UPDATE clarion.organisation_counters c
    SET change_id = n.after_change_id, link = substr($20::bytea, (n.last_place - 1)::integer * 32 + 1, 32)
    FROM unnest($8::text::bigint[], $9::text::bigint[], $10::text::bigint[], $11::text::bigint[])
         AS n (organisation_id, before_change_id, after_change_id, last_place)
    WHERE c.organisation_id = n.organisation_id AND c.change_id = n.before_change_id
      AND c.organisation_id = ANY ($8::text::bigint[])
    RETURNING 1
), sequences AS (
    UPDATE clarion.subscription_counters c SET sequence = n.after_sequence
    FROM unnest($12::text::bigint[], $13::text::bigint[], $14::text::bigint[])
         AS n (subscription_id, before_sequence, after_sequence)
    WHERE c.subscription_id = n.subscription_id AND c.sequence = n.before_sequence
      AND c.subscription_id = ANY ($12::text::bigint[])
    RETURNING 1
)

-- name: deleted
-- Of a batch: its rows, taken out of the outbox.
DELETE FROM clarion.outbox o
USING unnest($15::text::bigint[], $16::text::bigint[], $17::text::bigint[], $18::text::bigint[], $19::text::bigint[])
      WITH ORDINALITY AS n (outbox_id, organisation_id, change_id, events_before, events_count, place)
WHERE o.id = n.outbox_id AND o.id = ANY ($15::text::bigint[])
RETURNING n.place::integer AS place, n.organisation_id, n.change_id, n.events_before, n.events_count::integer AS events_count,
          o.id, o.half_of, o.occurred_at, o.captured_at, o.xid, o.hops, o.action, o.resource, o.object_id, o.actor_id,
          o.actor_name, {correlation}, o.old, o.new, o.problem

-- name: ledgered
-- Of a batch: its rows as changes.
INSERT INTO clarion.ledger (position, organisation_id, change_id, outbox_id, half_of, recorded_at, occurred_at, captured_at,
                            xid, hops, action, resource, object_id, actor_id, actor_name, correlation_id, link, salt, old, new,
                            problem, first_event_id, events_count)
SELECT $1 + place, organisation_id, change_id, id, half_of, $22::timestamptz, occurred_at, captured_at,
       xid, hops, action, resource, object_id, actor_id, actor_name, correlation_id,
       substr($20::bytea, (place - 1) * 32 + 1, 32), substr($21::bytea, (place - 1) * 16 + 1, 16), old, new,
       problem, CASE WHEN events_count > 0 THEN $2 + events_before + 1 END, events_count
FROM taken
RETURNING 1

-- name: batch
-- One batch, whole or not at all: takes the rows, ledgers them, queues their events, moves every counter by
-- compare-and-set and compares the configuration's version. Any mismatch raises CL001: no part can have more rows than it is
-- meant to have, so all have them if together they have $30.
-- The keys stand there twice so that rows are found by the index whatever the planner believes the tables to hold.
-- Numbers that follow from a row's place are made here, links (32 bytes each) and salts (16) come in one piece, arrays of numbers
-- as text: encoding arrays is a good part of what the router does, and the driver takes ten times as long for each element.
-- $18 has for each row how many events those before it made, $26 for each event the place of its row.
-- Out: this transaction's xid.
WITH {counted}, taken AS (
    {deleted}
), ledgered AS (
    {ledgered}
), queued AS (
    INSERT INTO clarion.queue (queue_id, event_id, organisation_id, receiver_id, subscription_id, position, sequence, lane, shard)
    SELECT $3 + n.place, $2 + n.place, n.organisation_id, n.receiver_id, n.subscription_id, $1 + n.place_of_change, n.sequence,
           n.lane, (n.receiver_id % $29)::smallint
    FROM unnest($23::text::bigint[], $24::text::bigint[], $25::text::bigint[], $26::text::bigint[], $27::text::bigint[],
                $28::text::bigint[])
         WITH ORDINALITY AS n (organisation_id, receiver_id, subscription_id, place_of_change, sequence, lane, place)
    RETURNING 1
)
SELECT CASE WHEN count(*) = $30::bigint THEN pg_current_xact_id()::text::bigint
            ELSE clarion.abort_batch('counters, configuration or rows moved') END AS xid,
       CASE WHEN $5::bigint > $2 THEN pg_notify('clarion_queue', '') END AS woken
FROM (SELECT FROM moved UNION ALL SELECT FROM tails UNION ALL SELECT FROM sequences
      UNION ALL SELECT FROM ledgered UNION ALL SELECT FROM queued) AS made;

-- name: batch_with_more
-- The same with what few batches have, and what others would pay for. $31 and $32 are the places and other halves of rows that
-- moved to another partition: one UPDATE of two. $33 to $35 say how bodies are made, empty if all are as usual: unnest fills up
-- with nulls. $36 to $41 are the subscriptions of which expressions had no result.
WITH {counted}, deleted AS (
    {deleted}
), halves AS (
    DELETE FROM clarion.outbox o
    USING unnest($31::text::bigint[], $32::text::bigint[]) AS n (place, outbox_id)
    WHERE o.id = n.outbox_id AND o.id = ANY ($32::text::bigint[])
    RETURNING n.place::integer AS place, o.new, o.problem
), taken AS (
    SELECT d.place, d.organisation_id, d.change_id, d.events_before, d.events_count, d.id, d.half_of, d.occurred_at, d.captured_at,
           d.xid, d.hops, CASE WHEN h.place IS NULL THEN d.action ELSE 'u' END AS action, d.resource, d.object_id, d.actor_id,
           d.actor_name, d.correlation_id, d.old, CASE WHEN h.place IS NULL THEN d.new ELSE h.new END AS new,
           coalesce(d.problem, h.problem) AS problem
    FROM deleted d LEFT JOIN halves h USING (place)
), ledgered AS (
    {ledgered}
), queued AS (
    INSERT INTO clarion.queue (queue_id, event_id, organisation_id, receiver_id, subscription_id, position, sequence, lane, shard,
                               render_version, fields, body)
    SELECT $3 + n.place, $2 + n.place, n.organisation_id, n.receiver_id, n.subscription_id, $1 + n.place_of_change, n.sequence,
           n.lane, (n.receiver_id % $29)::smallint, coalesce(n.render_version, 1), n.fields, n.body
    FROM unnest($23::text::bigint[], $24::text::bigint[], $25::text::bigint[], $26::text::bigint[], $27::text::bigint[],
                $28::text::bigint[], $33::smallint[], $34::text[], $35::bytea[])
         WITH ORDINALITY AS n (organisation_id, receiver_id, subscription_id, place_of_change, sequence, lane, render_version, fields,
                               body, place)
    RETURNING 1
), failed AS (
    INSERT INTO clarion.evaluation_errors AS e (subscription_id, organisation_id, conditions_count, templates_count,
                                                last_change_id, last_message)
    SELECT n.subscription_id, n.organisation_id, n.conditions_count, n.templates_count, n.change_id, n.message
    FROM unnest($36::bigint[], $37::bigint[], $38::integer[], $39::integer[], $40::bigint[], $41::text[])
         AS n (subscription_id, organisation_id, conditions_count, templates_count, change_id, message)
    ON CONFLICT (subscription_id) DO UPDATE
    SET conditions_count = e.conditions_count + excluded.conditions_count,
        templates_count = e.templates_count + excluded.templates_count,
        last_at = excluded.last_at, last_change_id = excluded.last_change_id, last_message = excluded.last_message
)
SELECT CASE WHEN count(*) = $30::bigint THEN pg_current_xact_id()::text::bigint
            ELSE clarion.abort_batch('counters, configuration or rows moved') END AS xid,
       CASE WHEN $5::bigint > $2 THEN pg_notify('clarion_queue', '') END AS woken
FROM (SELECT FROM moved UNION ALL SELECT FROM tails UNION ALL SELECT FROM sequences UNION ALL SELECT FROM ledgered
      UNION ALL SELECT FROM halves UNION ALL SELECT FROM queued) AS made;

-- name: take_requests
-- Retries that were asked for, whole or not at all: takes the requests and queues the next round of each settled event,
-- with the hash of what was sent before. A request whose event is open or was sent again since has nothing left to do.
-- Apart from `batch`, which then costs nothing for it. In: the three counters as last written, limit, number of shards.
-- Out: the last queue id. Raises CL001 if a counter moved. Index: events' partitions by event id, queue_of_organisation; the keys
-- stand there twice as in `batch`, since by the join alone this session would read the whole of each table.
WITH asked AS (
    SELECT id, $3::bigint + row_number() OVER (ORDER BY id) AS queue_id
    FROM (SELECT id FROM clarion.intake WHERE kind = 'RETRY' ORDER BY id LIMIT $4) AS lowest
), moved AS (
    UPDATE clarion.counters SET queue_id = $3 + (SELECT count(*) FROM asked)
    WHERE position = $1 AND event_id = $2 AND queue_id = $3
    RETURNING queue_id
), admitted AS (
    DELETE FROM clarion.intake i USING asked WHERE i.id = asked.id AND i.id = ANY (ARRAY(SELECT id FROM asked))
    RETURNING asked.queue_id, i.organisation_id, (i.request ->> 'event_id')::bigint AS event_id,
              (i.request ->> 'round')::smallint AS round
), queued AS (
    INSERT INTO clarion.queue (queue_id, event_id, round, organisation_id, receiver_id, subscription_id, position, sequence,
                               lane, shard, render_version, fields, body, body_sha256)
    SELECT DISTINCT ON (e.event_id)
           a.queue_id, e.event_id, e.round + 1, e.organisation_id, e.receiver_id, e.subscription_id, e.position, e.sequence,
           a.queue_id, (e.receiver_id % $5)::smallint, e.render_version, e.fields, e.body, e.body_sha256
    FROM admitted a
    JOIN clarion.events e ON e.event_id = a.event_id AND e.round = a.round AND e.organisation_id = a.organisation_id
    WHERE e.event_id = ANY (ARRAY(SELECT event_id FROM admitted))
      AND e.organisation_id = ANY (ARRAY(SELECT organisation_id FROM admitted))
      AND NOT EXISTS (
          SELECT FROM clarion.queue q
          WHERE q.organisation_id = e.organisation_id AND q.organisation_id = ANY (ARRAY(SELECT organisation_id FROM admitted))
            AND q.event_id = e.event_id AND q.event_id = ANY (ARRAY(SELECT event_id FROM admitted))
      ) AND NOT EXISTS (
          SELECT FROM clarion.events later
          WHERE later.event_id = e.event_id AND later.event_id = ANY (ARRAY(SELECT event_id FROM admitted))
            AND later.round > e.round
      )
    ORDER BY e.event_id, a.queue_id
)
SELECT CASE WHEN (SELECT count(*) FROM moved) = 1 THEN (SELECT queue_id FROM moved)
            ELSE clarion.abort_batch('counters moved') END AS queue_id,
       pg_notify('clarion_queue', '') AS woken;

-- name: counters
SELECT position, event_id, queue_id FROM clarion.counters;

-- name: tails
-- The last number and link of each organisation asked for; one that never had a change starts at the genesis.
-- In: organisation ids, genesis.
WITH made AS (
    INSERT INTO clarion.organisation_counters (organisation_id, change_id, link)
    SELECT o, 0, $2 FROM unnest($1::bigint[]) AS o
    ON CONFLICT (organisation_id) DO NOTHING
    RETURNING organisation_id, change_id, link
)
SELECT organisation_id, change_id, link FROM made
UNION ALL
SELECT organisation_id, change_id, link FROM clarion.organisation_counters WHERE organisation_id = ANY ($1::bigint[]);

-- name: organisations
SELECT id, name FROM clarion.organisations;

-- name: add_organisations
-- Organisations that a row named for the first time. In: names.
INSERT INTO clarion.organisations (name) SELECT unnest($1::text[]) ON CONFLICT (name) DO NOTHING;

-- name: configuration_version
SELECT version FROM clarion.configuration;

-- name: active_subscriptions
-- Those whose receiver has the right to their resource.
SELECT s.id, s.organisation_id, s.receiver_id, s.resource, s.action, s.condition, array_to_json(s.fields)::text AS fields, s.template
FROM clarion.subscriptions s JOIN clarion.receivers r ON r.id = s.receiver_id
WHERE s.active AND s.deleted IS NULL AND r.deleted IS NULL
  AND (r.readable_resources IS NULL OR s.resource = ANY (r.readable_resources));

-- name: end_activations
-- Ends what does not hold any more: subscriptions that are not active or have lost their right, and those that ask or show something else since.
-- In: active ids, next position. What held for no change at all is taken on by `begin_activations`.
WITH ended AS (
    UPDATE clarion.activations a SET until_position = $2
    WHERE a.until_position IS NULL AND NOT EXISTS (
        SELECT FROM clarion.subscriptions s
        WHERE s.id = a.subscription_id AND s.id = ANY ($1::bigint[])
          AND (s.condition, s.fields, s.template) IS NOT DISTINCT FROM (a.condition, a.fields, a.template)
    )
    RETURNING a.subscription_id
)
DELETE FROM clarion.evaluation_errors e USING ended WHERE e.subscription_id = ended.subscription_id;

-- name: begin_activations
-- From which position on subscriptions hold, with what they ask and show. In: active ids, next position.
INSERT INTO clarion.activations AS a (subscription_id, organisation_id, from_position, condition, fields, template)
SELECT s.id, s.organisation_id, $2, s.condition, s.fields, s.template
FROM clarion.subscriptions s
WHERE s.id = ANY ($1::bigint[])
  AND NOT EXISTS (SELECT FROM clarion.activations o WHERE o.subscription_id = s.id AND o.until_position IS NULL)
ON CONFLICT (subscription_id, from_position) DO UPDATE
SET until_position = NULL, condition = excluded.condition, fields = excluded.fields, template = excluded.template;

-- name: decimal_columns
-- Columns that are decimal numbers, of these resources. In: names of resources.
SELECT r.name AS resource, array_agg(c.name) AS columns
FROM clarion.resources r CROSS JOIN LATERAL clarion.columns_of(r.schema_name, r.table_name) AS c
WHERE r.name = ANY ($1::text[]) AND c.kind = 'DECIMAL' GROUP BY r.name;

-- name: sequences
-- The last sequence of each subscription asked for, made at 0 where absent. In: ids, organisations.
WITH made AS (
    INSERT INTO clarion.subscription_counters (subscription_id, organisation_id, sequence)
    SELECT n.subscription_id, n.organisation_id, 0
    FROM unnest($1::bigint[], $2::bigint[]) AS n (subscription_id, organisation_id)
    ON CONFLICT (subscription_id) DO NOTHING
    RETURNING subscription_id, sequence
)
SELECT subscription_id, sequence FROM made
UNION ALL
SELECT subscription_id, sequence FROM clarion.subscription_counters WHERE subscription_id = ANY ($1::bigint[]);

-- name: lock
-- Session lock of the one router of this database.
SELECT pg_try_advisory_lock(1129071954, 1);

-- name: is_the_lock
-- Whether a row of pg_locks is that lock, held.
l.locktype = 'advisory' AND l.classid = 1129071954 AND l.objid = 1
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.granted

-- name: begin
-- A router begins: until `end_well` its end counts as a bad one. A router that died while it evaluated is counted against
-- the rows once, here; not if it was this process, which lives. In: ids and deaths of the marker this process left.
-- Out: how the one before ended, the suspected rows with their deaths, the outbox sequence's last value.
WITH before AS (SELECT ended_well FROM clarion.router)
UPDATE clarion.router r
SET ended_well = false, evaluating = false,
    batch_deaths = batch_deaths + (evaluating AND (batch_ids, batch_deaths) IS DISTINCT FROM ($1::bigint[], $2::smallint))::integer
FROM before
RETURNING before.ended_well, r.batch_ids, r.batch_deaths, {last_drawn} AS sequence_last;

-- name: mark
-- These rows are about to be evaluated. In: ids, deaths that stand against them.
UPDATE clarion.router SET batch_ids = $1, batch_deaths = $2, evaluating = true;

-- name: unmark
-- The evaluation is over and nobody died of it.
UPDATE clarion.router SET batch_ids = NULL, batch_deaths = 0, evaluating = false;

-- name: end_well
UPDATE clarion.router SET ended_well = true;

-- name: beat
-- The router lives. In: pid of its session. Out: no row if that does not hold the lock: one that wakes after another took over must
-- not pass for the router, or nobody would end the session of the other if that froze now.
UPDATE clarion.router SET backend_pid = $1, beat_at = clock_timestamp()
WHERE EXISTS (SELECT FROM pg_locks l WHERE l.pid = $1 AND {is_the_lock})
RETURNING backend_pid;

-- name: frozen
-- The pid of a router's session that has not beaten for $1 seconds though it holds the lock; no row if all is well.
SELECT r.backend_pid FROM clarion.router r
JOIN pg_locks l ON l.pid = r.backend_pid AND {is_the_lock}
WHERE r.beat_at < clock_timestamp() - make_interval(secs => $1);

-- name: end_session
SELECT pg_terminate_backend($1);
