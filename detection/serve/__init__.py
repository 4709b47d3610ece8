"""The command `python -m detection.serve`: derain and detect over HTTP, and a live view."""
