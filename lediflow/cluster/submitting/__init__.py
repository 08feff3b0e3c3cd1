"""Submission: the copy of the code, the job script, sbatch or submitit, and pipelines of dependent jobs."""
