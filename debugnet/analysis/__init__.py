"""What a head uses, where it errs, and what an edit of it does: statements about a linear layer."""
