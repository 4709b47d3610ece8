"""Random input for everything that reads files: never a traceback, never a silent drop."""
