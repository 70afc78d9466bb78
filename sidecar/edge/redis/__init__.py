"""Redis: connections, counters, keys, wallets, retries, alerts and the scripts that they run."""
