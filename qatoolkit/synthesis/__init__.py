"""Synthesis: labels seeds, plans the budget, and writes questions by a strategy."""
