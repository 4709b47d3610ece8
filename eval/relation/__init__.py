"""`python -m eval.relation`: how restoration gains relate to detection gains."""
