"""The one parser of data files: training and prediction both read through `formats.registry`."""
