"""`python -m lediflow.dashboard`."""

from lediflow.dashboard import main

if __name__ == "__main__":
    main()
