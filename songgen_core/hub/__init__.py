"""Getting the published files: what there is, under which licence, and downloading it."""
