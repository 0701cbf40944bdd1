"""From raw prompts to clean ones, apart for training and for judging."""
