"""Sparse generalized linear models along a regularization path, certified at every point."""
