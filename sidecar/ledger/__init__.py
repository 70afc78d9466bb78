"""Operations on the ledger for commands: load it, sum it up, trace sums to records, compact it."""
