"""Frames at the edges and inside: conversions, image files, videos, tiles, sizes."""
