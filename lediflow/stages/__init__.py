"""The three training stages: the loss of each for a batch."""
