"""Logits and labels → metrics, intervals, calibration, thresholds, errors, baselines."""
