"""The store: SQLite. Rows are written by plain `executemany`; sqlite-utils makes tables and views.

`schema` opens it, `batches` applies what ingest staged, `history` reads records and the change log,
`ledger` keeps runs, stages, cursors, fences, outbox and quarantine.
"""
