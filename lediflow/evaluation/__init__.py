"""How good the images are and what they cost, as numbers that say how they came about."""
