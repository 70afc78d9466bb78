"""The documents of a node: policies, keys, certificates and secrets, validated together, and the copy for children."""
