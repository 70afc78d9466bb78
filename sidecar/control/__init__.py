"""The control listener: health, metrics and status, for operators. On the data path only `probe` is used."""
