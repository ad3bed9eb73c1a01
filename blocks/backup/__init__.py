"""Targets that keep backups: a folder, Google Drive."""
