"""Tables of tools/bench: each benchmark's own, times by component, goals, several GPUs."""
