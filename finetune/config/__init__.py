"""A recipe: its schema, how it is read from YAML and the command line, and its help."""
