"""Training: one plain torch loop over Hugging Face models, resumable to the bit on a CPU."""
