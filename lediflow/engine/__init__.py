"""Everything that depends on ranks and devices: engines, communication, checkpoints, stop requests, the watchdog."""
