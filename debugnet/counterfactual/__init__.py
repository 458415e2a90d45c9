"""Changed inputs that ask a head what it would have decided."""
