"""Measuring: restoration metrics, mAP on rainy detection sets, and reports."""
