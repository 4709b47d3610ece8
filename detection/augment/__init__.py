"""Training a detector on rendered rain."""
