"""Teachers: a client for OpenAI-compatible endpoints whose every answer is kept in a ledger."""
