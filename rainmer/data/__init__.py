"""Data on the disk: annotations, layouts of sets, depth maps, properties of pairs."""
