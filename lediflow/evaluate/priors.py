"""How well the learned prior knows what it does not know: its diagnostics on real images."""
