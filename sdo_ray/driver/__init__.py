"""Who works on a run, and how far it is."""
