"""Stage 1: read chat exports into CSV files. One module per platform, plus shared code."""
