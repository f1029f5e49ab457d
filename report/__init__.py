"""One HTML page a run, from plain data."""
