"""`autosync up`: server, worker, observer, dashboard, deployments, and runs in this process."""
