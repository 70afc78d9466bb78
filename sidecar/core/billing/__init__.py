"""Pure rules of billing, over what the ledger has."""
