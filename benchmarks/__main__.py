"""`python -m benchmarks`; `make bench` calls it."""

from benchmarks.run import main

main(prog_name="python -m benchmarks")
