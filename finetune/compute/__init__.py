"""This machine: its plan, micro-batches, sequence packing, the frozen cache, FSDP."""
