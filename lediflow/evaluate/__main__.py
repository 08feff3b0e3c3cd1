"""`python -m lediflow.evaluate`."""

from lediflow.evaluate import main

if __name__ == "__main__":
    main()
