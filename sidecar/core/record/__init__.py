"""Records as CloudEvents, their ids and JSON Schema, and the frames in which a journal stores them."""

from sidecar.core.record.alert import Alert, alert_record
from sidecar.core.record.events import (
    INTERNAL_ERROR,
    WITHHELD,
    Checkpoint,
    Denied,
    Totals,
    arrived_us,
    checkpoint_record,
    crashed_record,
    denial_record,
    open_entry,
    short_record,
    usage_record,
    withheld_record,
)
from sidecar.core.record.fields import Facts
from sidecar.core.record.ids import Ids
from sidecar.core.record.schema import record_schema
from sidecar.core.record.settlement import Settlement, Settlements
from sidecar.core.record.templates import RecordTemplates, templates_for

__all__ = [
    "INTERNAL_ERROR", "WITHHELD", "Alert", "Checkpoint", "Denied", "Facts", "Ids", "RecordTemplates", "Settlement",
    "Settlements", "Totals", "alert_record", "arrived_us", "checkpoint_record", "crashed_record", "denial_record",
    "open_entry", "record_schema", "short_record", "templates_for", "usage_record", "withheld_record",
]  # fmt: skip
