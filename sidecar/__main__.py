"""`python -m sidecar` is `sidecar`."""

from sidecar.cli import main

main()
