"""The stages of a run as Prefect tasks: each names the plain function that does the work, in `flows.operations`."""
