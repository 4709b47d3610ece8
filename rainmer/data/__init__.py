"""Data on disk: annotations, layouts of sets, depth maps, properties of pairs."""
