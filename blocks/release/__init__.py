"""What a release needs of the outside: the folder of releases, the Git working tree."""
