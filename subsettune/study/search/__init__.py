"""The search: which policy to try next. It knows Optuna and no Ray."""
