"""From a request to a job in the queue: the script, the copy of the code, sbatch, chains of jobs."""
