"""Teachers: a client for OpenAI-compatible endpoints that keeps every answer in a ledger."""
