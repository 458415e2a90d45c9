"""The command line, derived from the recipes; no logic lives here."""
