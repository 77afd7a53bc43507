"""One file per tracker, read downwards. Each registers its names; a new file is found by itself."""
