"""The command `python -m detection.tune`: fine-tune a derainer for a frozen detector."""
