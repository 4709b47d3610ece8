"""The contents of a scene: streets, buildings, vehicles, people."""
