"""From the dataclass of a command to objects: inputs, models, stages, the parts of a run, pipelines of images."""
