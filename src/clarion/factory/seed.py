"""Master data of a young factory that builds thrusters: who works there, where, with what, and how."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from clarion.factory.states import (
    FieldType,
    LocationType,
    PartType,
    ProcedureStatus,
    ProcedureType,
    SourcingStrategy,
    TrackingType,
)
from clarion.factory.tables import (
    Location,
    Mbom,
    MbomItem,
    Part,
    PartInventory,
    Procedure,
    Step,
    StepField,
    Supplier,
    User,
)

_USERS: Final = (
    "Ada Okafor",
    "Bruno Lindqvist",
    "Chiara Romano",
    "Dmitri Petrov",
    "Elif Yilmaz",
    "Farah Haddad",
    "George Nakamura",
    "Hannah Weiss",
)
_SUPPLIERS: Final = (
    "Alloy & Sons",
    "Boreal Fasteners",
    "Cobalt Electronics",
    "Delta Seals",
    "Everest Composites",
)
_LOCATIONS: Final = (
    # name, type, name of what it is in
    ("Main warehouse", LocationType.WAREHOUSE, None),
    ("Receiving dock", LocationType.WAREHOUSE, None),
    ("Rack 1", LocationType.RACK, "Main warehouse"),
    ("Shelf 1-1", LocationType.SHELF, "Rack 1"),
    ("Shelf 1-2", LocationType.SHELF, "Rack 1"),
    ("Tote 7", LocationType.TOTE, "Shelf 1-2"),
    ("Machining", LocationType.WORKCENTER, None),
    ("Welding booth", LocationType.WORKCENTER, None),
    ("Clean room", LocationType.WORKCENTER, None),
    ("Assembly bench", LocationType.WORKCENTER, None),
    ("Leak test stand", LocationType.WORKCENTER, None),
    ("Vibration table", LocationType.WORKCENTER, None),
    ("Final inspection", LocationType.WORKCENTER, None),
)


@dataclass(frozen=True, slots=True)
class _Part:
    number: str
    description: str
    cost: str
    tracking: TrackingType | None = None
    made: bool = False
    kind: PartType = PartType.PART
    stock: int = 0


_PARTS: Final = (
    _Part("THR-100", "Thruster, 100 N", "48000", TrackingType.SERIAL, made=True),
    _Part("VLV-200", "Propellant valve assembly", "6200", TrackingType.SERIAL, made=True),
    _Part("AVB-300", "Avionics box", "15500", TrackingType.SERIAL, made=True),
    _Part("CHM-110", "Combustion chamber, machined", "9800", TrackingType.SERIAL, stock=12),
    _Part("INJ-120", "Injector plate", "4100", TrackingType.SERIAL, stock=12),
    _Part("NOZ-130", "Nozzle extension, columbium", "11200", TrackingType.SERIAL, stock=12),
    _Part("SLN-210", "Solenoid", "380", TrackingType.LOT, stock=150),
    _Part("SEA-220", "Seal, PTFE, 12 mm", "4.20", TrackingType.LOT, stock=2000),
    _Part("SPR-230", "Spring, stainless", "1.85", TrackingType.LOT, stock=2000),
    _Part("HSG-240", "Valve housing", "610", TrackingType.LOT, stock=120),
    _Part("PCB-310", "Controller board", "2900", TrackingType.SERIAL, stock=12),
    _Part("CON-320", "Connector, circular, 37 pins", "145", TrackingType.LOT, stock=400),
    _Part("ENC-330", "Enclosure, milled aluminium", "870", TrackingType.LOT, stock=80),
    _Part("HRN-340", "Wire harness", "540", TrackingType.LOT, stock=80),
    _Part("FST-010", "Screw, M4 x 12, A286", "0.95", TrackingType.LOT, stock=10000),
    _Part("FST-020", "Washer, M4", "0.12", TrackingType.LOT, stock=10000),
    _Part("WIR-030", "Lock wire, 0.8 mm", "0.40", None, stock=5000),
    _Part("ADH-040", "Thread locker, 10 ml", "18.50", TrackingType.LOT, stock=60),
    _Part("TQW-900", "Torque wrench, 2 to 10 N m", "420", TrackingType.SERIAL, kind=PartType.TOOL, stock=2),
    _Part("GAU-910", "Height gauge", "760", TrackingType.SERIAL, kind=PartType.TOOL, stock=1),
)
_MBOMS: Final = {
    "THR-100": (("CHM-110", 1), ("INJ-120", 1), ("NOZ-130", 1), ("SEA-220", 4), ("FST-010", 24), ("FST-020", 24)),
    "VLV-200": (("HSG-240", 1), ("SLN-210", 2), ("SEA-220", 6), ("SPR-230", 2), ("FST-010", 8)),
    "AVB-300": (("ENC-330", 1), ("PCB-310", 1), ("CON-320", 4), ("HRN-340", 1), ("FST-010", 16)),
}


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    type: FieldType
    unit: str | None = None
    value_min: str | None = None
    value_max: str | None = None
    options: tuple[str, ...] = ()
    required: bool = True


_SIGNED: Final = _Field("Technician", FieldType.SIGNOFF)
_INSPECTED: Final = _Field("Inspector", FieldType.SIGNOFF)
_CLEAN: Final = _Field("Surfaces free of particles", FieldType.BOOLEAN)
_NOTE: Final = _Field("Note", FieldType.STRING, required=False)

_PROCEDURES: Final = (
    # title, type, part number, steps of (title, work centre, fields)
    (
        "Build thruster",
        ProcedureType.BUILD,
        "THR-100",
        (
            ("Clean chamber and injector", "Clean room", (_CLEAN, _SIGNED)),
            (
                "Weld injector to chamber",
                "Welding booth",
                (_Field("Weld current", FieldType.NUMBER, "A", "85", "95"), _SIGNED),
            ),
            (
                "Torque injector screws",
                "Assembly bench",
                (_Field("Torque", FieldType.NUMBER, "N m", "4.5", "5.5"), _SIGNED),
            ),
            ("Mount nozzle extension", "Assembly bench", (_SIGNED, _NOTE)),
            (
                "Leak test",
                "Leak test stand",
                (_Field("Leak rate", FieldType.NUMBER, "sccm", "0", "0.8"), _INSPECTED),
            ),
            (
                "Final inspection",
                "Final inspection",
                (_Field("Result", FieldType.SELECT, options=("pass", "fail")), _INSPECTED),
            ),
        ),
    ),
    (
        "Build valve assembly",
        ProcedureType.BUILD,
        "VLV-200",
        (
            ("Inspect housing", "Machining", (_Field("Bore", FieldType.NUMBER, "mm", "11.98", "12.02"),)),
            ("Fit seals and springs", "Clean room", (_CLEAN, _SIGNED)),
            (
                "Fit solenoids",
                "Assembly bench",
                (_Field("Coil resistance", FieldType.NUMBER, "ohm", "23", "27"), _SIGNED),
            ),
            ("Leak test", "Leak test stand", (_Field("Leak rate", FieldType.NUMBER, "sccm", "0", "0.2"), _INSPECTED)),
        ),
    ),
    (
        "Build avionics box",
        ProcedureType.BUILD,
        "AVB-300",
        (
            ("Mount board and connectors", "Assembly bench", (_SIGNED,)),
            (
                "Connect harness",
                "Assembly bench",
                (_Field("Insulation resistance", FieldType.NUMBER, "Mohm", "100", "10000"), _SIGNED),
            ),
            ("Close enclosure", "Assembly bench", (_Field("Torque", FieldType.NUMBER, "N m", "1.1", "1.5"), _NOTE)),
            (
                "Vibration test",
                "Vibration table",
                (_Field("Resonance", FieldType.NUMBER, "Hz", "140", "400"), _INSPECTED),
            ),
            (
                "Final inspection",
                "Final inspection",
                (_Field("Result", FieldType.SELECT, options=("pass", "fail")), _INSPECTED),
            ),
        ),
    ),
    (
        "Calibrate torque wrench",
        ProcedureType.MAINTENANCE,
        None,
        (
            (
                "Compare with reference",
                "Final inspection",
                (_Field("Deviation at 5 N m", FieldType.NUMBER, "%", "-4", "4"), _INSPECTED),
            ),
        ),
    ),
)


def sow(session: Session) -> bool:
    """Whether the factory was empty and has got its master data, in the caller's transaction."""
    if session.scalar(select(Location.id).limit(1)) is not None:
        return False
    session.add_all(User(name=name, email=f"{name.split()[0].lower()}@factory.example") for name in _USERS)
    session.add_all(Supplier(name=name) for name in _SUPPLIERS)
    locations = _sow_locations(session)
    parts = _sow_parts(session, locations)
    _sow_mboms(session, parts)
    _sow_procedures(session, parts, locations)
    session.flush()
    return True


def _sow_locations(session: Session) -> dict[str, int]:
    """Keys by name."""
    keys: dict[str, int] = {}
    for name, kind, parent in _LOCATIONS:
        location = Location(name=name, type=kind, parent_id=keys.get(parent or ""))
        session.add(location)
        session.flush()
        keys[name] = location.id
    return keys


def _sow_parts(session: Session, locations: dict[str, int]) -> dict[str, int]:
    """Keys by part number; with the stock to begin with."""
    keys: dict[str, int] = {}
    for entry in _PARTS:
        part = Part(
            part_number=entry.number,
            description=entry.description,
            part_type=entry.kind,
            tracking_type=entry.tracking,
            sourcing_strategy=SourcingStrategy.MAKE if entry.made else SourcingStrategy.BUY,
            cost=Decimal(entry.cost),
            lead_time_days=30 if entry.made else 14,
        )
        session.add(part)
        session.flush()
        keys[entry.number] = part.id
        place = {"part_id": part.id, "location_id": locations["Shelf 1-1"], "cost": part.cost}
        if entry.tracking is TrackingType.SERIAL:
            session.add_all(
                PartInventory(serial_number=f"{entry.number}-{number:05}", quantity=1, **place)
                for number in range(1, entry.stock + 1)
            )
        elif entry.stock:
            session.add(PartInventory(lot_number=f"{entry.number}-L1", quantity=entry.stock, **place))
    return keys


def _sow_mboms(session: Session, parts: dict[str, int]) -> None:
    for number, items in _MBOMS.items():
        mbom = Mbom(part_id=parts[number], status=ProcedureStatus.RELEASED)
        session.add(mbom)
        session.flush()
        session.add_all(
            MbomItem(mbom_id=mbom.id, part_id=parts[item], quantity=Decimal(quantity)) for item, quantity in items
        )


def _sow_procedures(session: Session, parts: dict[str, int], locations: dict[str, int]) -> None:
    for title, kind, part_number, steps in _PROCEDURES:
        procedure = Procedure(
            title=title,
            type=kind,
            status=ProcedureStatus.RELEASED,
            part_id=parts[part_number] if part_number else None,
        )
        session.add(procedure)
        session.flush()
        procedure.family_id = procedure.id
        for position, (step_title, place, fields) in enumerate(steps, start=1):
            # Positions leave room for steps that are put in later.
            step = Step(
                procedure_id=procedure.id, title=step_title, position=position * 10, location_id=locations[place]
            )
            session.add(step)
            session.flush()
            session.add_all(
                _field(step.id, place_in_step, field) for place_in_step, field in enumerate(fields, start=1)
            )


def _field(step_id: int, position: int, field: _Field) -> StepField:
    return StepField(
        step_id=step_id,
        name=field.name,
        type=field.type,
        position=position,
        unit=field.unit,
        value_min=None if field.value_min is None else Decimal(field.value_min),
        value_max=None if field.value_max is None else Decimal(field.value_max),
        required=field.required,
        options=list(field.options),
    )
