"""What a run tells the world: the event log, and views of it (W&B, the progress bar, the HTML report)."""
