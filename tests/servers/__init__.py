"""Real servers for the tests, started here on ports that the system picks, and a proxy that spoils what passes it."""
