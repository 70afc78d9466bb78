"""The composition: builds every edge, introduces them to each other, and owns the order of start and stop."""
