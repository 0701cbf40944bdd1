"""Networks that rewards look through, and what those have in common: preprocessing, checkpoints, key maps."""
