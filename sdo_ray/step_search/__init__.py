"""Which steps to compute, and how the others are held: searched by evolution for one model, error against cost."""
