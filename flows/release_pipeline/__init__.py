"""The jobs of the release pipeline, how they are set up, and the programs that they start."""
