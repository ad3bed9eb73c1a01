"""The store: SQLite. Rows are written by plain `executemany`; sqlite-utils makes tables and views.

`schema` opens it, `batches` applies what ingest staged, `history` reads records and the change log,
`hashes` and `parts` keep what sources showed, `ledger` keeps runs, stages, cursors, fences, outbox and quarantine,
`leases` which process holds which lease.
"""
