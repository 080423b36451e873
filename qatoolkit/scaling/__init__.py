"""Scaling: points on the axes of model size, data volume and initial FLOPs, and fits through them."""
