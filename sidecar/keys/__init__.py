"""The registered API keys for commands: read, changed, imported, exported, and moved from earlier versions."""
