"""A finished run ↔ the Hugging Face Hub: published, and verified from what arrived there."""
