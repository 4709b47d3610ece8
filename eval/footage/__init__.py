"""What can be said about deraining on footage that has no labels and no clean frames."""
