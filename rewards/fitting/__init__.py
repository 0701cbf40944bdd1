"""How the weights of the learned rewards were made: one script per reward, deterministic, on one CPU thread."""
