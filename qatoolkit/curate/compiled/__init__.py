"""Compiled loops of curation: module-level functions, kept beside their file. Importing a module of this folder loads
numba."""
