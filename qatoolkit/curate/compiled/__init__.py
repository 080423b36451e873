"""Compiled loops of curation. They are module-level functions so that numba can cache them beside their files.
Importing a module of this folder loads numba."""
