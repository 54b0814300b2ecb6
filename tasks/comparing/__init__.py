"""Comparisons of methods over seeds, on the same questions."""
