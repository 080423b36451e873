"""The knowledge-point graph: names, merges, links and walks (LinkSyn, arXiv 2508.01317)."""
