"""Acts of supply: purchase orders, receipts, kits.

Each takes a session with its transaction open (`clarion.factory.act.perform` gives one), and returns what it did.
An act on an order or a kit locks it first, as the acts on runs do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session

from clarion.factory.act import Act, ActRefused, Change, Person, created, updated
from clarion.factory.shop_floor import available_stock, lock_run
from clarion.factory.states import KitStatus, LocationType, OrderLineStatus, OrderStatus, TrackingType
from clarion.factory.tables import (
    BuildRequirement,
    Location,
    Part,
    PartInventory,
    PartKit,
    PartKitItem,
    PurchaseOrder,
    PurchaseOrderLine,
    Receipt,
    ReceiptItem,
    RunStep,
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A line of an order to be: `cost` is of one piece; None means what the part usually costs."""

    part_id: int
    quantity: Decimal
    cost: Decimal | None = None


def draft_order(session: Session, supplier_id: int, lines: Sequence[Wanted], by: Person) -> Act:
    """A purchase order with its lines, all drafts. Raises ActRefused without lines."""
    if not lines:
        raise ActRefused("an order needs a line")
    order = PurchaseOrder(supplier_id=supplier_id, assigned_to_id=by.id)
    session.add(order)
    session.flush()
    rows = []
    for wanted in lines:
        part = session.get_one(Part, wanted.part_id)
        rows.append(
            PurchaseOrderLine(
                purchase_order_id=order.id,
                part_id=part.id,
                description=part.description,
                quantity=wanted.quantity,
                cost=wanted.cost if wanted.cost is not None else part.cost or Decimal(0),
            )
        )
    session.add_all(rows)
    session.flush()
    return Act(
        "draft_order", f"order {order.id} drafted, {len(rows)} lines", (created(order), *(created(row) for row in rows))
    )


def submit_order(session: Session, order_id: int) -> Act:
    """A drafted order goes to review. Raises ActRefused when it is no draft."""
    return _move_order(session, order_id, OrderStatus.DRAFT, OrderStatus.IN_REVIEW)


def approve_order(session: Session, order_id: int) -> Act:
    """An order in review is approved. Raises ActRefused when it is not in review."""
    return _move_order(session, order_id, OrderStatus.IN_REVIEW, OrderStatus.APPROVED)


def place_order(session: Session, order_id: int) -> Act:
    """All draft lines are ordered, and with them the order; what will come is in the inventory as on order.

    Of a part that is tracked by serial number each piece is inventory of its own.
    Raises ActRefused when the order is neither a draft, nor in review, nor approved.
    """
    order = _locked_order(session, order_id)
    if order.status not in (OrderStatus.DRAFT, OrderStatus.IN_REVIEW, OrderStatus.APPROVED):
        raise ActRefused(f"order {order_id} is {order.status}", "only an order that was not placed yet can be")
    lines = session.execute(
        select(PurchaseOrderLine, Part)
        .outerjoin(Part, Part.id == PurchaseOrderLine.part_id)
        .where(PurchaseOrderLine.purchase_order_id == order_id, PurchaseOrderLine.status == OrderLineStatus.DRAFT)
        .order_by(PurchaseOrderLine.id)
    ).all()
    coming: list[PartInventory] = []
    for line, part in lines:
        line.status = OrderLineStatus.ORDERED
        coming += [_on_order(order, line, quantity) for quantity in _pieces(part, line.quantity)]
    if not lines:
        order.status = OrderStatus.ORDERED
    session.add_all(coming)
    session.flush()
    return Act(
        "place_order",
        f"order {order_id} placed, {len(lines)} lines",
        (
            updated(PurchaseOrder, order_id),
            *(updated(PurchaseOrderLine, line.id) for line, _ in lines),
            *(created(stock) for stock in coming),
        ),
    )


def receive(session: Session, order_line_id: int, by: Person, *, quantity: Decimal | None = None) -> Act:
    """What was ordered on a line arrives: a receipt with its items, and the inventory is there.

    `quantity` None means all that is still missing. Inventory of which only a part came is split.
    Raises ActRefused when nothing of the line is on order, or more came than is missing.
    """
    order_id = session.scalar(select(PurchaseOrderLine.purchase_order_id).where(PurchaseOrderLine.id == order_line_id))
    if order_id is None:
        raise ActRefused(f"there is no purchase order line {order_line_id}")
    order = _locked_order(session, order_id)
    line = session.get_one(PurchaseOrderLine, order_line_id, populate_existing=True)
    missing = line.quantity - line.received_quantity
    arrived = missing if quantity is None else quantity
    if line.status != OrderLineStatus.ORDERED or not 0 < arrived <= missing:
        raise ActRefused(
            f"order line {order_line_id} is {line.status} and misses {missing}; {arrived} cannot be received"
        )
    dock = session.scalar(
        select(Location.id)
        .where(Location.type == LocationType.WAREHOUSE)
        .order_by(Location.name != "Receiving dock", Location.id)
        .limit(1)
    )
    receipt = Receipt(
        purchase_order_id=order_id, packing_slip=f"PS-{order_id}-{line.id}", received_by_id=by.id, location_id=dock
    )
    session.add(receipt)
    session.flush()
    changes = [created(receipt), *_take_in(session, order, line, receipt, arrived), updated(PurchaseOrderLine, line.id)]
    changes.append(updated(PurchaseOrder, order_id))
    return Act("receive", f"order {order_id}: {arrived} of line {line.id} received", tuple(changes))


def request_kit(session: Session, run_id: int, by: Person) -> Act:
    """A kit of what a run still requires is requested, to be brought to its first work centre.

    Raises ActRefused when the run requires nothing more, or a kit for it is open.
    """
    lock_run(session, run_id)
    open_kit = select(PartKit.id).where(
        PartKit.run_id == run_id, PartKit.status.not_in((KitStatus.COMPLETED, KitStatus.CANCELED))
    )
    if session.scalar(open_kit.limit(1)) is not None:
        raise ActRefused(f"run {run_id} has an open kit")
    required = session.scalars(
        select(BuildRequirement)
        .where(BuildRequirement.run_id == run_id, BuildRequirement.installed_quantity < BuildRequirement.quantity)
        .order_by(BuildRequirement.id)
    ).all()
    if not required:
        raise ActRefused(f"run {run_id} requires no parts")
    place = session.scalar(
        select(RunStep.location_id).where(RunStep.run_id == run_id).order_by(RunStep.position, RunStep.id).limit(1)
    )
    kit = PartKit(run_id=run_id, status=KitStatus.REQUESTED, assigned_to_id=by.id, delivery_location_id=place)
    session.add(kit)
    session.flush()
    items = [
        PartKitItem(part_kit_id=kit.id, part_id=entry.part_id, quantity=entry.quantity - entry.installed_quantity)
        for entry in required
    ]
    session.add_all(items)
    session.flush()
    return Act("request_kit", f"kit {kit.id} for run {run_id}", (created(kit), *(created(item) for item in items)))


def pick_item(session: Session, kit_item_id: int) -> Act:
    """An item of a kit is picked from available inventory, as much as the oldest has.

    Raises ActRefused when it is picked already, or nothing is available.
    """
    kit_id = session.scalar(select(PartKitItem.part_kit_id).where(PartKitItem.id == kit_item_id))
    if kit_id is None:
        raise ActRefused(f"there is no kit item {kit_item_id}")
    kit = session.get_one(PartKit, kit_id, with_for_update={"key_share": True}, populate_existing=True)
    item = session.get_one(PartKitItem, kit_item_id, populate_existing=True)
    if kit.status not in (KitStatus.REQUESTED, KitStatus.IN_PROGRESS) or item.kitted_quantity > 0:
        raise ActRefused(f"kit {kit_id} is {kit.status}, its item {kit_item_id} has {item.kitted_quantity}")
    stock = available_stock(session, item.part_id)
    if stock is None:
        raise ActRefused(f"no inventory of part {item.part_id} is available", "order and receive some")
    item.parts_inventory_id = stock.id
    item.kitted_quantity = min(item.quantity, stock.quantity_available)
    session.flush()
    return Act(
        "pick_item",
        f"kit {kit_id}: {item.kitted_quantity} of inventory {stock.id} picked",
        (updated(PartKitItem, kit_item_id), updated(PartInventory, stock.id)),
    )


def deliver_kit(session: Session, kit_id: int) -> Act:
    """A kit in progress is delivered. Raises ActRefused when it is not in progress."""
    return _move_kit(session, kit_id, KitStatus.IN_PROGRESS, KitStatus.DELIVERED)


def complete_kit(session: Session, kit_id: int) -> Act:
    """A delivered kit is handed over; its pieces are free to be installed. Raises ActRefused otherwise."""
    return _move_kit(session, kit_id, KitStatus.DELIVERED, KitStatus.COMPLETED)


def _pieces(part: Part | None, quantity: Decimal) -> list[Decimal]:
    """The quantities of the inventory rows that a line of this part makes; a line without part makes none."""
    if part is None:
        return []
    if part.tracking_type != TrackingType.SERIAL:
        return [quantity]
    if quantity != int(quantity):
        raise ActRefused(f"{quantity} of part {part.id}: pieces with serial numbers come whole")
    return [Decimal(1)] * int(quantity)


def _on_order(order: PurchaseOrder, line: PurchaseOrderLine, quantity: Decimal) -> PartInventory:
    return PartInventory(
        part_id=line.part_id,
        quantity=quantity,
        on_order=True,
        cost=line.cost,
        supplier_id=order.supplier_id,
        purchase_order_line_id=line.id,
    )


def _take_in(
    session: Session, order: PurchaseOrder, line: PurchaseOrderLine, receipt: Receipt, arrived: Decimal
) -> list[Change]:
    """Receipt items for the inventory on order of a line, oldest first, until all that arrived is in."""
    part = None if line.part_id is None else session.get(Part, line.part_id)
    if part is None:
        item = ReceiptItem(receipt_id=receipt.id, purchase_order_line_id=line.id, quantity=arrived)
        session.add(item)
        session.flush()
        return [created(item)]
    ordered = session.scalars(
        select(PartInventory)
        .where(PartInventory.purchase_order_line_id == line.id, PartInventory.on_order)
        .order_by(PartInventory.id)
        .with_for_update(key_share=True)
    ).all()
    changes: list[Change] = []
    left = arrived
    for stock in ordered:
        if left <= 0:
            break
        taken = min(left, stock.quantity)
        left -= taken
        into = stock
        if taken < stock.quantity:
            stock.quantity -= taken
            # Empty at first: the roll-up fills it from its receipt item.
            into = _on_order(order, line, Decimal(0))
            session.add(into)
            session.flush()
            changes += [created(into), updated(PartInventory, stock.id)]
        _label(into, part, receipt)
        item = ReceiptItem(
            receipt_id=receipt.id, purchase_order_line_id=line.id, parts_inventory_id=into.id, quantity=taken
        )
        session.add(item)
        session.flush()
        changes += [created(item), updated(PartInventory, into.id)]
    if left > 0:
        raise ActRefused(f"order line {line.id}: {left} of what arrived is not on order")
    return changes


def _label(stock: PartInventory, part: Part, receipt: Receipt) -> None:
    """What is received gets a place, and a serial or lot number as its part is tracked."""
    stock.location_id = receipt.location_id
    if part.tracking_type == TrackingType.SERIAL:
        stock.serial_number = f"{part.part_number}-R{stock.id:06}"
    elif part.tracking_type == TrackingType.LOT:
        stock.lot_number = f"{part.part_number}-R{receipt.id}"


def _locked_order(session: Session, order_id: int) -> PurchaseOrder:
    order = session.get(PurchaseOrder, order_id, with_for_update={"key_share": True}, populate_existing=True)
    if order is None:
        raise ActRefused(f"there is no purchase order {order_id}")
    return order


def _move_order(session: Session, order_id: int, before: OrderStatus, after: OrderStatus) -> Act:
    order = _locked_order(session, order_id)
    if order.status != before:
        raise ActRefused(f"order {order_id} is {order.status}, not {before}")
    order.status = after
    session.flush()
    return Act(f"order_{after}", f"order {order_id} {after}", (updated(PurchaseOrder, order_id),))


def _move_kit(session: Session, kit_id: int, before: KitStatus, after: KitStatus) -> Act:
    kit = session.get(PartKit, kit_id, with_for_update={"key_share": True}, populate_existing=True)
    if kit is None or kit.status != before:
        raise ActRefused(f"kit {kit_id} is {kit.status if kit else 'not there'}, not {before}")
    kit.status = after
    session.flush()
    return Act(f"kit_{after}", f"kit {kit_id} {after}", (updated(PartKit, kit_id),))
