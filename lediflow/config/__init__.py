"""From a command line to what runs: options composed, objects built, a run described or submitted.

composition    the dataclasses of all commands; Hydra composes their values, checks reject contradictions
building       the objects of a run, from its dataclasses
dry_run        memory, disk space and time of a run that is not started
submission     jobs on SLURM: requests, sweeps, pipelines, Hydra launchers
"""
