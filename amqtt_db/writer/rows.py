"""Typed records → encoded rows per table, or what does not fit: the second of a batch's three values."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from amqtt_db.database.engines.base import Unfit
from amqtt_db.record import Record, RecordSlice
from amqtt_db.writer.decoded import RecordGroup, RecordGroups
from amqtt_db.writer.insert_plan import InsertPlanner
from amqtt_db.writer.insert_target import TargetRows


@attrs.frozen
class Misfits:
    """The groups of records that hold a value that its kind's column would not return exactly."""

    groups: Sequence[RecordGroup]


def plan_rows(groups: RecordGroups, planner: InsertPlanner) -> Sequence[TargetRows] | Misfits:
    """Return the rows of all records by target; the schema must have room for them."""
    together: dict[int, list[tuple[RecordGroup, Sequence[Record]]]] = {}
    for group, records in groups.items():
        whole = records.whole if isinstance(records, RecordSlice) else records
        together.setdefault(id(whole), []).append((group, records))
    rows: list[TargetRows] = []
    misfits: list[RecordGroup] = []
    for some in together.values():
        made, unfit = _rows_or_misfits(some, planner)
        rows += made
        misfits += unfit
    return Misfits(misfits) if misfits else rows


def fit(groups: RecordGroups, misfits: Misfits, planner: InsertPlanner) -> RecordGroups:
    """Return the groups with every record of the misfits in a shape whose columns return its values exactly."""
    fitted = {group: records for group, records in groups.items() if group not in misfits.groups}
    for destination, shape in misfits.groups:
        found: dict[RecordGroup, list[Record]] = {}
        for record in map(planner.fit, groups[destination, shape]):
            found.setdefault((destination, record.shape), []).append(record)
        for group, records in found.items():
            fitted[group] = [*fitted.get(group, ()), *records]
    return fitted


def _rows_or_misfits(
    some: Sequence[tuple[RecordGroup, Sequence[Record]]], planner: InsertPlanner
) -> tuple[list[TargetRows], list[RecordGroup]]:
    """Return the rows of groups, halving those with a value that does not fit, and the groups that hold such values."""
    try:
        return planner.rows(some), []
    except Unfit:
        if len(some) == 1:
            return [], [some[0][0]]
    middle = len(some) // 2
    rows, misfits = _rows_or_misfits(some[:middle], planner)
    more_rows, more_misfits = _rows_or_misfits(some[middle:], planner)
    return [*rows, *more_rows], [*misfits, *more_misfits]
