"""Weights & Biases as a view of the event log: one W&B run for each run folder, through every requeue.

There is one way from the log to W&B, for finished runs, running ones and training itself:

log_index  where the events of a log lie in its file: a log of any length takes little memory
rows       events.jsonl -> the rows that are still to be sent, each with a step that never changes
facts      configuration, parents, code versions and SLURM jobs; results of evaluations; exported models
record     RUN/wandb/sync.json: the run's id, and what cannot be read from the log
client     the only module that imports wandb, when it is used
artifacts  models and results
files      the folders that wandb writes to, and where finished files lie
sending    one synchronisation, or one after another while the log grows
sync_loop  the same again and again, through faults
training_view  what a training has of it: a process of its own, which cannot slow the training down
"""
