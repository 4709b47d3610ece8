"""The shipped weights, and `python -m rainmer.weights`, which shows and converts weights files."""
