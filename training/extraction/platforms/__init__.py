"""One module a platform: each file here is found, tried and offered by name without being listed anywhere."""
