"""The stages of a study, in order: reference, search, verification, ablation."""
