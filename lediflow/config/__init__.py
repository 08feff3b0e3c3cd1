"""Configuration: dataclasses (schema), their names for Hydra (register), and config -> objects (build)."""
