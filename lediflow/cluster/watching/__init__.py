"""From outside: what jobs and runs are doing, and what may be done about it."""
