"""What commands and flows do, as plain functions: no Prefect is imported here."""
