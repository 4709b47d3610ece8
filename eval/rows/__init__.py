"""Rows of a run: which derainers, what is cached, how a row is run and resumed."""
