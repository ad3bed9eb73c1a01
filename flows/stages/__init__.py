"""One file per stage: the work as a plain function, and the thin Prefect task around it."""
