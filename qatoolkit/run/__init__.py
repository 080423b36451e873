"""Runs: profiles, the world they live in, stages, tables, figures, the report and the command line."""
