"""From a command line to the checked dataclass of a command; builds no models and opens no files of a run."""
