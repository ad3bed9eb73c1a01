"""Channels that deliver notices: Slack, email, the console."""
