"""What stands in a scene: streets, buildings, vehicles, people."""
