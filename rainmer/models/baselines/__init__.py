"""Other published derainers, one network a file."""
