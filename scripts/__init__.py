"""Programs: each also a `ghost` verb."""
