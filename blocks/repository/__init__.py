"""Git repositories as a push target and as a history: on disk, at an address, over the GitHub API."""
