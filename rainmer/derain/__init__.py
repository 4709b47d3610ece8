"""The command `python -m rainmer.derain`: images, folders and videos."""
