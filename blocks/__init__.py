"""One file per outside thing: described settings and the calls the flows need."""
