"""Recording a run: the event log, and views of it while it trains (progress, W&B)."""
