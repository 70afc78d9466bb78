"""What is written down: ids, records as CloudEvents, their JSON Schema, and the journal's frames."""
