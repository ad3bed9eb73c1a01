"""The dashboard: a REST API under /api/v1 and pages for people, both of one `Reading`, both read-only."""
