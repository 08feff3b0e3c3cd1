"""Configuration: the dataclasses of all commands, their registration with Hydra, and building objects from them."""
