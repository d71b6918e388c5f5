"""Policies followed by training code that is not ours: batches, rates and switches, handed out one by one."""
