"""The second listener: health, metrics and status, for operators and their machines. Never on the data path."""
