"""The fast engine: the same songs, sooner and in less memory. Reached through `songgen_core.engine` alone."""
