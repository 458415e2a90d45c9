"""From networks and data sets to deep features, row by row."""
