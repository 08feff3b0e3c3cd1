"""Inside a job: the supervisor on its first node, and each rank under it."""
