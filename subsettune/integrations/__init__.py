"""Other projects that a study meets, one a file: trackers that are told of it, and hosts that follow a bundle."""
