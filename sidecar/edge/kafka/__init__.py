"""Kafka: the sink of records, its topics, and the reader of both."""
