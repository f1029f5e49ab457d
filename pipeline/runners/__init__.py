"""Where a pipeline runs: one interface, one file per place."""
