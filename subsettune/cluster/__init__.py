"""Ray clusters: checks and submission."""
