"""Studies: what is searched, the search itself, the test of what it found, and their records."""
