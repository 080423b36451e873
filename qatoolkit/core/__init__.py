"""What every room builds on: the QA table, settings, files, artifacts, statistics, display."""
