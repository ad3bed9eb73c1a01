"""The Prefect flows, one task per stage, and the command line."""
