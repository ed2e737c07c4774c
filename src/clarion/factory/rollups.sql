-- Roll-ups of the reference factory: what follows from other rows is written by the database, so that it holds for
-- every writer. Run as a whole by install.py; each statement may be repeated.
--
-- Two rules keep concurrent writers right. A function that counts children locks their parents first, in the order of
-- their ids: the count that follows is a statement of its own and sees what the writer before has committed. And it
-- writes a parent only where something differs, so that nothing is captured that did not change.
--
-- Statement triggers with transition tables: a bulk write is rolled up once, not once a row. For an UPDATE, the rows
-- whose deciding columns moved are the difference between the two tables; a join of the two would have no index.

-- ---------------------------------------------------------------- runs, from their steps

-- The first of these that holds is the run's status: one step failed; one is a redline; one is on hold; all are
-- canceled; all (but canceled ones) are complete; one was begun; none was. A canceled run stays canceled.
CREATE OR REPLACE FUNCTION factory.roll_up_runs(run_ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM factory.runs WHERE id = ANY (run_ids) ORDER BY id FOR NO KEY UPDATE;

    UPDATE factory.runs AS run
    SET status = counted.status,
        started_at = CASE WHEN counted.begun THEN coalesce(run.started_at, now()) ELSE run.started_at END,
        completed_at = CASE WHEN counted.status = 'complete' THEN coalesce(run.completed_at, now()) END
    FROM (
        SELECT step.run_id,
               bool_or(step.status IN ('in_progress', 'complete', 'failed')) AS begun,
               CASE
                   WHEN bool_or(step.status = 'failed') THEN 'failed'
                   WHEN bool_or(step.status = 'redline') THEN 'redline'
                   WHEN bool_or(step.status = 'hold') THEN 'hold'
                   WHEN bool_and(step.status = 'canceled') THEN 'canceled'
                   WHEN bool_and(step.status IN ('complete', 'canceled')) THEN 'complete'
                   WHEN bool_or(step.status IN ('in_progress', 'complete')) THEN 'in_progress'
                   ELSE 'todo'
               END AS status
        FROM factory.run_steps AS step
        WHERE step.run_id = ANY (run_ids)
        GROUP BY step.run_id
    ) AS counted
    WHERE run.id = counted.run_id
      AND run.status <> 'canceled'
      AND (run.status <> counted.status OR (counted.begun AND run.started_at IS NULL));

    UPDATE factory.run_steps AS step
    SET available_to_work = counted.available
    FROM (
        SELECT each.id,
               run.status <> 'canceled'
               AND each.status IN ('todo', 'in_progress')
               AND coalesce(
                   bool_and(each.status IN ('complete', 'canceled')) OVER (
                       PARTITION BY each.run_id ORDER BY each.position
                       RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
                   true) AS available
        FROM factory.run_steps AS each
        JOIN factory.runs AS run ON run.id = each.run_id
        WHERE each.run_id = ANY (run_ids)
    ) AS counted
    WHERE step.id = counted.id AND step.available_to_work <> counted.available;
END $$;

CREATE OR REPLACE FUNCTION factory.run_steps_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    run_ids bigint[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(DISTINCT run_id) INTO run_ids FROM new_rows;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(DISTINCT run_id) INTO run_ids FROM old_rows;
    ELSE
        SELECT array_agg(DISTINCT moved.run_id) INTO run_ids
        FROM (
            (SELECT id, run_id, status, position FROM new_rows EXCEPT SELECT id, run_id, status, position FROM old_rows)
            UNION ALL
            (SELECT id, run_id, status, position FROM old_rows EXCEPT SELECT id, run_id, status, position FROM new_rows)
        ) AS moved;
    END IF;
    IF run_ids IS NOT NULL THEN
        PERFORM factory.roll_up_runs(run_ids);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER roll_up_insert AFTER INSERT ON factory.run_steps
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.run_steps_changed();
CREATE OR REPLACE TRIGGER roll_up_update AFTER UPDATE ON factory.run_steps
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.run_steps_changed();
CREATE OR REPLACE TRIGGER roll_up_delete AFTER DELETE ON factory.run_steps
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.run_steps_changed();

CREATE OR REPLACE FUNCTION factory.run_step_stamped() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.status IN ('in_progress', 'complete') THEN
        NEW.started_at := coalesce(NEW.started_at, now());
    END IF;
    NEW.completed_at := CASE WHEN NEW.status = 'complete' THEN coalesce(NEW.completed_at, now()) END;
    IF NEW.status NOT IN ('todo', 'in_progress') THEN
        NEW.available_to_work := false;
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER stamp BEFORE INSERT OR UPDATE OF status ON factory.run_steps
    FOR EACH ROW EXECUTE FUNCTION factory.run_step_stamped();

-- A canceled run cancels its open steps; what it was building is scrapped. A complete one releases what it built.
CREATE OR REPLACE FUNCTION factory.run_ended() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.status = 'canceled' THEN
        UPDATE factory.run_steps SET status = 'canceled'
        WHERE run_id = NEW.id AND status IN ('todo', 'in_progress', 'hold', 'redline');
    END IF;
    IF NEW.parts_inventory_id IS NOT NULL THEN
        UPDATE factory.parts_inventory
        SET work_in_progress = NEW.status NOT IN ('complete', 'canceled'),
            quantity_scrapped = CASE WHEN NEW.status = 'canceled' THEN quantity ELSE quantity_scrapped END
        WHERE id = NEW.parts_inventory_id
          AND work_in_progress <> (NEW.status NOT IN ('complete', 'canceled'));
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER run_ended AFTER UPDATE OF status ON factory.runs
    FOR EACH ROW WHEN (NEW.status IS DISTINCT FROM OLD.status) EXECUTE FUNCTION factory.run_ended();

-- ---------------------------------------------------------------- purchase orders, from their lines

-- The first state of draft, ordered, received, canceled that one of the lines is in. While one is a draft the order may
-- itself be in review or approved.
CREATE OR REPLACE FUNCTION factory.roll_up_purchase_orders(order_ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM factory.purchase_orders WHERE id = ANY (order_ids) ORDER BY id FOR NO KEY UPDATE;

    UPDATE factory.purchase_orders AS placed
    SET status = CASE WHEN counted.status = 'draft' AND placed.status IN ('in_review', 'approved')
                      THEN placed.status ELSE counted.status END,
        estimated_total_cost = counted.cost,
        received_quantity = counted.received
    FROM (
        SELECT line.purchase_order_id,
               coalesce(sum(line.quantity * line.cost) FILTER (WHERE line.status <> 'canceled'), 0) AS cost,
               sum(line.received_quantity) AS received,
               CASE
                   WHEN bool_or(line.status = 'draft') THEN 'draft'
                   WHEN bool_or(line.status = 'ordered') THEN 'ordered'
                   WHEN bool_or(line.status = 'received') THEN 'received'
                   ELSE 'canceled'
               END AS status
        FROM factory.purchase_order_lines AS line
        WHERE line.purchase_order_id = ANY (order_ids)
        GROUP BY line.purchase_order_id
    ) AS counted
    WHERE placed.id = counted.purchase_order_id
      AND (placed.estimated_total_cost <> counted.cost
           OR placed.received_quantity <> counted.received
           OR (placed.status <> counted.status
               AND NOT (counted.status = 'draft' AND placed.status IN ('in_review', 'approved'))));
END $$;

CREATE OR REPLACE FUNCTION factory.purchase_order_lines_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    order_ids bigint[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(DISTINCT purchase_order_id) INTO order_ids FROM new_rows;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(DISTINCT purchase_order_id) INTO order_ids FROM old_rows;
    ELSE
        SELECT array_agg(DISTINCT moved.purchase_order_id) INTO order_ids
        FROM (
            (SELECT id, purchase_order_id, status, quantity, received_quantity, cost FROM new_rows
             EXCEPT SELECT id, purchase_order_id, status, quantity, received_quantity, cost FROM old_rows)
            UNION ALL
            (SELECT id, purchase_order_id, status, quantity, received_quantity, cost FROM old_rows
             EXCEPT SELECT id, purchase_order_id, status, quantity, received_quantity, cost FROM new_rows)
        ) AS moved;
    END IF;
    IF order_ids IS NOT NULL THEN
        PERFORM factory.roll_up_purchase_orders(order_ids);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER roll_up_insert AFTER INSERT ON factory.purchase_order_lines
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.purchase_order_lines_changed();
CREATE OR REPLACE TRIGGER roll_up_update AFTER UPDATE ON factory.purchase_order_lines
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.purchase_order_lines_changed();
CREATE OR REPLACE TRIGGER roll_up_delete AFTER DELETE ON factory.purchase_order_lines
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.purchase_order_lines_changed();

-- ---------------------------------------------------------------- lines and inventory, from receipt items

-- A line whose whole quantity came is received; one that lacks some again is ordered. Inventory that something was
-- received into holds just what was received, and is no longer on order.
CREATE OR REPLACE FUNCTION factory.receipt_items_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    line_ids bigint[];
    inventory_ids bigint[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(DISTINCT purchase_order_line_id), array_agg(DISTINCT parts_inventory_id)
        INTO line_ids, inventory_ids FROM new_rows;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(DISTINCT purchase_order_line_id), array_agg(DISTINCT parts_inventory_id)
        INTO line_ids, inventory_ids FROM old_rows;
    ELSE
        SELECT array_agg(DISTINCT moved.purchase_order_line_id), array_agg(DISTINCT moved.parts_inventory_id)
        INTO line_ids, inventory_ids
        FROM (SELECT * FROM new_rows UNION ALL SELECT * FROM old_rows) AS moved;
    END IF;

    PERFORM FROM factory.purchase_order_lines WHERE id = ANY (line_ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE factory.purchase_order_lines AS line
    SET received_quantity = counted.quantity,
        status = CASE
                     WHEN line.status = 'ordered' AND counted.quantity >= line.quantity THEN 'received'
                     WHEN line.status = 'received' AND counted.quantity < line.quantity THEN 'ordered'
                     ELSE line.status
                 END
    FROM (
        SELECT wanted.id, coalesce(sum(item.quantity), 0) AS quantity
        FROM unnest(line_ids) AS wanted (id)
        LEFT JOIN factory.receipt_items AS item ON item.purchase_order_line_id = wanted.id
        GROUP BY wanted.id
    ) AS counted
    WHERE line.id = counted.id AND line.received_quantity <> counted.quantity;

    PERFORM FROM factory.parts_inventory WHERE id = ANY (inventory_ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE factory.parts_inventory AS stock
    SET quantity = counted.quantity,
        on_order = false,
        received_at = coalesce(stock.received_at, now())
    FROM (
        SELECT item.parts_inventory_id AS id, sum(item.quantity) AS quantity
        FROM factory.receipt_items AS item
        WHERE item.parts_inventory_id = ANY (inventory_ids)
        GROUP BY item.parts_inventory_id
    ) AS counted
    WHERE stock.id = counted.id AND (stock.quantity <> counted.quantity OR stock.on_order OR stock.received_at IS NULL);
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER roll_up_insert AFTER INSERT ON factory.receipt_items
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.receipt_items_changed();
CREATE OR REPLACE TRIGGER roll_up_update AFTER UPDATE ON factory.receipt_items
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.receipt_items_changed();
CREATE OR REPLACE TRIGGER roll_up_delete AFTER DELETE ON factory.receipt_items
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.receipt_items_changed();

-- ---------------------------------------------------------------- inventory

-- The first that holds: nothing left; all scrapped; all installed; work in progress; held by an issue; all kitted;
-- on order; otherwise available.
CREATE OR REPLACE FUNCTION factory.parts_inventory_calculated() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    usable numeric := NEW.quantity - NEW.quantity_scrapped;
BEGIN
    NEW.status := CASE
        WHEN NEW.quantity = 0 AND NEW.on_order THEN 'on_order'
        WHEN NEW.quantity = 0 THEN 'unavailable'
        WHEN usable <= 0 THEN 'scrapped'
        WHEN NEW.quantity_installed >= usable THEN 'installed'
        WHEN NEW.work_in_progress THEN 'wip'
        WHEN NEW.quality_hold THEN 'unavailable'
        WHEN NEW.quantity_installed + NEW.quantity_kitted >= usable THEN 'kitted'
        WHEN NEW.on_order THEN 'on_order'
        ELSE 'available'
    END;
    NEW.quantity_available := CASE
        WHEN NEW.status = 'available' THEN usable - NEW.quantity_installed - NEW.quantity_kitted
        ELSE 0
    END;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER calculate
    BEFORE INSERT OR UPDATE OF quantity, quantity_scrapped, quantity_installed, quantity_kitted, on_order, work_in_progress, quality_hold
    ON factory.parts_inventory FOR EACH ROW EXECUTE FUNCTION factory.parts_inventory_calculated();

-- Pieces installed, per piece and per requirement.
CREATE OR REPLACE FUNCTION factory.abom_installations_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    inventory_ids bigint[];
    requirement_ids bigint[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(DISTINCT parts_inventory_id), array_agg(DISTINCT build_requirement_id)
        INTO inventory_ids, requirement_ids FROM new_rows;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(DISTINCT parts_inventory_id), array_agg(DISTINCT build_requirement_id)
        INTO inventory_ids, requirement_ids FROM old_rows;
    ELSE
        SELECT array_agg(DISTINCT moved.parts_inventory_id), array_agg(DISTINCT moved.build_requirement_id)
        INTO inventory_ids, requirement_ids
        FROM (SELECT * FROM new_rows UNION ALL SELECT * FROM old_rows) AS moved;
    END IF;

    PERFORM FROM factory.build_requirements WHERE id = ANY (requirement_ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE factory.build_requirements AS required
    SET installed_quantity = counted.quantity
    FROM (
        SELECT wanted.id, coalesce(sum(installed.quantity), 0) AS quantity
        FROM unnest(requirement_ids) AS wanted (id)
        LEFT JOIN factory.abom_installations AS installed ON installed.build_requirement_id = wanted.id
        GROUP BY wanted.id
    ) AS counted
    WHERE required.id = counted.id AND required.installed_quantity <> counted.quantity;

    PERFORM FROM factory.parts_inventory WHERE id = ANY (inventory_ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE factory.parts_inventory AS stock
    SET quantity_installed = counted.quantity
    FROM (
        SELECT wanted.id, coalesce(sum(installed.quantity), 0) AS quantity
        FROM unnest(inventory_ids) AS wanted (id)
        LEFT JOIN factory.abom_installations AS installed ON installed.parts_inventory_id = wanted.id
        GROUP BY wanted.id
    ) AS counted
    WHERE stock.id = counted.id AND stock.quantity_installed <> counted.quantity;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER roll_up_insert AFTER INSERT ON factory.abom_installations
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.abom_installations_changed();
CREATE OR REPLACE TRIGGER roll_up_update AFTER UPDATE ON factory.abom_installations
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.abom_installations_changed();
CREATE OR REPLACE TRIGGER roll_up_delete AFTER DELETE ON factory.abom_installations
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.abom_installations_changed();

-- ---------------------------------------------------------------- kits

-- Pieces set aside: those of kits that are neither completed nor canceled.
CREATE OR REPLACE FUNCTION factory.roll_up_kitted(inventory_ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM factory.parts_inventory WHERE id = ANY (inventory_ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE factory.parts_inventory AS stock
    SET quantity_kitted = counted.quantity
    FROM (
        SELECT wanted.id,
               coalesce(sum(item.kitted_quantity) FILTER (WHERE kit.status NOT IN ('completed', 'canceled')), 0) AS quantity
        FROM unnest(inventory_ids) AS wanted (id)
        LEFT JOIN factory.part_kit_items AS item ON item.parts_inventory_id = wanted.id
        LEFT JOIN factory.parts_kits AS kit ON kit.id = item.part_kit_id
        GROUP BY wanted.id
    ) AS counted
    WHERE stock.id = counted.id AND stock.quantity_kitted <> counted.quantity;
END $$;

-- Kitting the first piece moves a requested kit to in progress.
CREATE OR REPLACE FUNCTION factory.part_kit_items_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    inventory_ids bigint[];
    kit_ids bigint[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(DISTINCT parts_inventory_id), array_agg(DISTINCT part_kit_id) FILTER (WHERE kitted_quantity > 0)
        INTO inventory_ids, kit_ids FROM new_rows;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(DISTINCT parts_inventory_id) INTO inventory_ids FROM old_rows;
    ELSE
        SELECT array_agg(DISTINCT moved.parts_inventory_id),
               array_agg(DISTINCT moved.part_kit_id) FILTER (WHERE moved.kitted_quantity > 0)
        INTO inventory_ids, kit_ids
        FROM (SELECT * FROM new_rows UNION ALL SELECT * FROM old_rows) AS moved;
    END IF;
    UPDATE factory.parts_kits SET status = 'in_progress' WHERE id = ANY (kit_ids) AND status = 'requested';
    PERFORM factory.roll_up_kitted(inventory_ids);
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER roll_up_insert AFTER INSERT ON factory.part_kit_items
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.part_kit_items_changed();
CREATE OR REPLACE TRIGGER roll_up_update AFTER UPDATE ON factory.part_kit_items
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.part_kit_items_changed();
CREATE OR REPLACE TRIGGER roll_up_delete AFTER DELETE ON factory.part_kit_items
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION factory.part_kit_items_changed();

-- A delivered kit takes its pieces to the delivery location; a kit that ends sets free what is left of them.
CREATE OR REPLACE FUNCTION factory.parts_kit_moved() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    inventory_ids bigint[] := ARRAY (
        SELECT DISTINCT parts_inventory_id FROM factory.part_kit_items
        WHERE part_kit_id = NEW.id AND parts_inventory_id IS NOT NULL
        ORDER BY parts_inventory_id);
BEGIN
    PERFORM factory.roll_up_kitted(inventory_ids);
    IF NEW.status = 'delivered' AND NEW.delivery_location_id IS NOT NULL THEN
        -- Only where the whole of it was kitted: a lot of which a part stays in store does not move.
        UPDATE factory.parts_inventory SET location_id = NEW.delivery_location_id
        WHERE id = ANY (inventory_ids) AND status = 'kitted' AND location_id IS DISTINCT FROM NEW.delivery_location_id;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER moved AFTER UPDATE OF status ON factory.parts_kits
    FOR EACH ROW WHEN (NEW.status IS DISTINCT FROM OLD.status) EXECUTE FUNCTION factory.parts_kit_moved();

-- ---------------------------------------------------------------- issues

-- Another disposition sends the issue back to pending, unless the same write says which state it is in.
CREATE OR REPLACE FUNCTION factory.issue_stamped() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.disposition IS DISTINCT FROM OLD.disposition AND NEW.status = OLD.status THEN
        NEW.status := 'pending';
    END IF;
    NEW.resolved_at := CASE WHEN NEW.status = 'resolved' THEN coalesce(NEW.resolved_at, now()) END;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER stamp BEFORE INSERT OR UPDATE OF status, disposition ON factory.issues
    FOR EACH ROW EXECUTE FUNCTION factory.issue_stamped();

-- Inventory is held while an issue on it is not resolved.
CREATE OR REPLACE FUNCTION factory.issue_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    inventory_ids bigint[];
BEGIN
    IF TG_OP <> 'INSERT' THEN
        inventory_ids := array_append(inventory_ids, OLD.parts_inventory_id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        inventory_ids := array_append(inventory_ids, NEW.parts_inventory_id);
    END IF;
    PERFORM FROM factory.parts_inventory WHERE id = ANY (inventory_ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE factory.parts_inventory AS stock
    SET quality_hold = counted.held
    FROM (
        SELECT wanted.id, EXISTS (
            SELECT FROM factory.issues AS issue WHERE issue.parts_inventory_id = wanted.id AND issue.status <> 'resolved'
        ) AS held
        FROM unnest(inventory_ids) AS wanted (id)
        GROUP BY wanted.id
    ) AS counted
    WHERE stock.id = counted.id AND stock.quality_hold <> counted.held;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER hold_insert AFTER INSERT ON factory.issues
    FOR EACH ROW WHEN (NEW.parts_inventory_id IS NOT NULL) EXECUTE FUNCTION factory.issue_changed();
CREATE OR REPLACE TRIGGER hold_update AFTER UPDATE OF status, parts_inventory_id ON factory.issues
    FOR EACH ROW WHEN (NEW.status <> OLD.status OR NEW.parts_inventory_id IS DISTINCT FROM OLD.parts_inventory_id)
    EXECUTE FUNCTION factory.issue_changed();
CREATE OR REPLACE TRIGGER hold_delete AFTER DELETE ON factory.issues
    FOR EACH ROW WHEN (OLD.parts_inventory_id IS NOT NULL) EXECUTE FUNCTION factory.issue_changed();
