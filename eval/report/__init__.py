"""What all reports are made of: pages, tables, figures, picture strips and files."""
