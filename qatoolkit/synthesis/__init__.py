"""Synthesis: labels, the budget, and the strategies that write questions."""
