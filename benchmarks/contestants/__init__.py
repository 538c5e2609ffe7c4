"""The programs that race: each measures itself in a fresh process and prints one JSON object."""
