"""From published files to networks: detect, read, rename, check, assign."""
