"""Frames: conversions, image files, videos, tiling, resizing."""
