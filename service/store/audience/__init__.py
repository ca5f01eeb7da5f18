"""How many watch: sketches of viewers by slot, what is left of them, and the counts of others."""
