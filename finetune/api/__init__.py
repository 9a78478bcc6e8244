"""Training and predicting from Python: what `import finetune` offers."""
