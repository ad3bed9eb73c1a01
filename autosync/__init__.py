"""The rules of AutoSync in plain Python: records, differences, plans, policies.

Nothing in this package imports a framework or a client, reads the environment,
opens a connection or looks at the clock when it is imported.
"""
