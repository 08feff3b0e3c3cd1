"""Jobs on a SLURM cluster: submitted as folders and scripts, supervised, continued until they are done."""
