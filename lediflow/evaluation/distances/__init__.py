"""Distances between sets of embeddings, on any number of ranks to the same bits."""
