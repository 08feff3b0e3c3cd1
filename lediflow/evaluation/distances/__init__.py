"""Distances between sets of embeddings, over any number of ranks to the same bits."""
