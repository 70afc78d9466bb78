"""What is written down: ids, records as CloudEvents, their JSON Schema, and the journal's frames."""

from sidecar.core.record.alert import Alert, alert_record
from sidecar.core.record.events import (
    Checkpoint,
    Facts,
    Totals,
    checkpoint_record,
    crashed_record,
    denial_record,
    open_entry,
    usage_record,
)
from sidecar.core.record.ids import Ids
from sidecar.core.record.schema import record_schema
from sidecar.core.record.voice import Voice

__all__ = [
    "Alert", "Checkpoint", "Facts", "Ids", "Totals", "Voice", "alert_record", "checkpoint_record", "crashed_record",
    "denial_record", "open_entry", "record_schema", "usage_record",
]  # fmt: skip
