"""Answers: whether two of them are the same."""
