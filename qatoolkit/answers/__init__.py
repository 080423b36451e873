"""Answers: whether two answers are the same."""
