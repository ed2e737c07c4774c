-- What attaching has to know of a table. Read by capture/table.py.

-- name: table
-- In: schema, table. Out: no row, or its oid, whether it is partitioned, its number of columns ever made.
SELECT c.oid::bigint, c.relkind = 'p', c.relnatts
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p');

-- name: columns
-- In: oid. Out: name, number, whether a trigger sees its value (not that of a virtual generated one), in order.
SELECT a.attname::text, a.attnum, a.attgenerated <> 'v'
FROM pg_attribute a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum;

-- name: primary_key
-- In: oid. Out: its columns in the key's order.
SELECT a.attname::text
FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = %s AND i.indisprimary ORDER BY k.place;

-- name: unique_keys
-- In: oid. Out: the columns of each unique, not null, not deferrable key.
SELECT array_agg(a.attname::text)
FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
WHERE i.indrelid = %s AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
GROUP BY i.indexrelid HAVING bool_and(a.attnotnull);

-- name: members
-- In: oid. Out: the table, its partitions and those of these, its INHERITS children and theirs: oid, schema, name,
-- whether it is a partition, its partition columns, the names of Clarion's triggers there with the resource of each.
WITH RECURSIVE member (oid) AS (
    SELECT %s::oid
    UNION SELECT i.inhrelid FROM pg_inherits i JOIN member m ON i.inhparent = m.oid
)
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relispartition,
       ARRAY(SELECT a.attname::text FROM pg_partitioned_table p JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE p.partrelid = c.oid AND a.attnum = ANY (p.partattrs)),
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       ARRAY(SELECT t.tgname::text FROM pg_trigger t WHERE t.tgrelid = c.oid),
       (SELECT f.proname::text FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid WHERE t.tgrelid = c.oid AND t.tgname = %s)
FROM member m JOIN pg_class c ON c.oid = m.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p')
ORDER BY c.oid <> %s::oid, n.nspname, c.relname;

-- name: triggers_of_resource
-- In: names of the functions, name of the truncate trigger, the resource. Out: schema, table and trigger of all that
-- belong to the resource wherever they are, but those that go with a partitioned table's own.
SELECT n.nspname::text, c.relname::text, t.tgname::text
FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgparentid = 0
  AND (f.pronamespace = 'clarion_triggers'::regnamespace AND f.proname = ANY (%s)
       OR t.tgname = %s AND t.tgargs = convert_to(%s, 'UTF8') || '\x00'::bytea)
ORDER BY 1, 2, 3;
