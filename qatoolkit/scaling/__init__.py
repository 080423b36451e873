"""Scaling: points along model size, data volume and initial FLOPs, fits of laws to them, and forecasts."""
