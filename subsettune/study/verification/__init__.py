"""Whether a policy matches the reference: candidates, the order of tests, the non-inferiority test."""
