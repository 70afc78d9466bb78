"""The listening sockets of a node, and what is accepted from them: connections up to a bound, and TLS handshakes."""
