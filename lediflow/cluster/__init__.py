"""Jobs on a SLURM cluster: submission, supervision and restarts, status."""
