"""From a teacher to a smaller student: what is cut, what it learns from, and how far it stays from its teacher."""
