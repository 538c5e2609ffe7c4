"""How the zoo's own models were trained: one script for each, with its data recipe and seed."""
