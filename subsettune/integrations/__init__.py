"""Host frameworks that follow a bundle, one a file."""
