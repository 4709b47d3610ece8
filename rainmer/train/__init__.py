"""Training on mixed data; the command is `python -m rainmer.train`."""
