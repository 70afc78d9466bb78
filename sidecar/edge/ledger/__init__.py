"""The ledger on disk: records as Parquet files that DuckDB writes and reads (the extra `billing`)."""
