"""Evaluation: exams through lm-eval, a fast cloze scorer that agrees with it, and probes."""
