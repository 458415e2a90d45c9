"""A package with two small stages of its own, registered the way debugnet's are, to test the shell with."""
