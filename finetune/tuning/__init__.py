"""Many runs of one recipe: seeds, cross-validation, hyperparameter sweeps."""
