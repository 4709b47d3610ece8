"""The cache of derained frames: its limit, and the command that shows and clears it."""
