"""The stores of a node without Redis: saved beside the journal, read back at a start, open to commands by a socket."""
