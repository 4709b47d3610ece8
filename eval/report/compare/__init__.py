"""Runs of training and of evaluation, compared by what they have written."""
