"""The ablation: does each component of a policy pay for itself?"""
