"""A finished run's model in the formats of the programs that people use it in, each loaded again and drawn with."""
