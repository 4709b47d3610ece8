"""Detectors of other libraries behind the sockets of `detection.types`: no AGPL code."""
