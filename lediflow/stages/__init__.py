"""The three trainings: what each makes of a batch. `python -m lediflow.stages.flow` is `lediflow.train stage=flow`."""
