"""Training: from prepared records to a checkpoint that infer.py reads."""
