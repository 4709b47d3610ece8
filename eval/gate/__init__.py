"""The gate's threshold: what deraining changes for a detector, frame by frame, and when it helps.

The command is `python -m eval.gate`.
"""
