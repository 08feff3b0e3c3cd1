"""Tables of results/campaign/KIND_*.json: a module for each kind of experiment in tools/campaign."""
