"""`python -m lediflow.report`."""

from lediflow.report import main

if __name__ == "__main__":
    main()
