"""`python -m lediflow.edit`."""

from lediflow.edit import main

if __name__ == "__main__":
    main()
