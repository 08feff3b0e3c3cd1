"""Status of jobs and runs from outside: their states, logs, used time, and the commands that cancel or resume them."""
