"""The files on disk: written atomically, with their provenance, and checked when they are read."""
