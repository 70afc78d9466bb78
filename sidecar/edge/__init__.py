"""Input and output: one technology a package. No package imports another; clock, files and watch are open to all."""
