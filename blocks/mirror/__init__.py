"""The versioned JSON mirror of a collection: base shards, delta files, manifest, versions, repair."""
