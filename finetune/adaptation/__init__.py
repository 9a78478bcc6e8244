"""Continued pretraining: an encoder and unlabelled documents → the encoder, adapted to them."""
