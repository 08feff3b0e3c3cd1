"""Processes inside a job: the supervisor on its first node, and the ranks."""
