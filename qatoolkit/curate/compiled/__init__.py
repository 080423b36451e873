"""Loops of curation compiled by numba: module-level functions, compiled once on a machine and kept beside their file."""
