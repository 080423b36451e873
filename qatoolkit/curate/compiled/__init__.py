"""Compiled loops of curation. Importing a module of this folder loads numba; the loops are cached on the disk."""
