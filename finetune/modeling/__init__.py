"""A pretrained encoder, pooling and a linear head: built, frozen, saved and loaded."""
