"""Results → results.json, the HTML report, the model card, the console report."""
