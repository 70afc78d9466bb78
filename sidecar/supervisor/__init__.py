"""The supervisor and its children: the protocol between them, restarts, reloads, and the order of an end."""
