"""The solvers, one algorithm per file; the contract is :mod:`debugnet.glm.solvers.base`."""
