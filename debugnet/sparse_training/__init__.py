"""Other ways to a sparse, readable network: LassoNet, spred, group lasso."""
