"""Dataset checks by Great Expectations: the checks, the process that runs them, its Data Docs."""
