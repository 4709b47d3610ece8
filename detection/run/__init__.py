"""The command `python -m detection`: sources, streams, what is saved and recorded."""
