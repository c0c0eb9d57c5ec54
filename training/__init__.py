"""From chat exports to a LoRA adapter. Imports without torch; torch is imported where it trains."""
