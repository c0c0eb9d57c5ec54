"""Stage 3: config, model, data, train."""
