"""What several selectors share: distances, scores, last-layer gradients, features, classes."""
