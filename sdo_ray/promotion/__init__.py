"""Which version of a registered model is the champion: rules, the lock, promotion and rollback."""
