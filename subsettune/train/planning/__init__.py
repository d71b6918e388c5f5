"""What is known of a run before its first step: its phases, whether it can be run, what it will spend."""
