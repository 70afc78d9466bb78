"""API keys outside Redis: the key file, JWTs, and the cache of identities."""
