"""How tests start the project's commands: inside this process, as real processes, and as several ranks."""
