"""Data: annotations of images; see the modules."""
