"""The checks of the gate, one per file. Each looks at one thing and returns what it found."""
