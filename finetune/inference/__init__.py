"""A saved model and documents → predictions: one text, or a batch job of millions."""
