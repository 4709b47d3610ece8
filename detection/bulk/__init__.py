"""`python -m detection.bulk`: millions of images on Ray Data, on one machine or on a cluster."""
