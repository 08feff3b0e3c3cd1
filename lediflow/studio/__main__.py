"""`python -m lediflow.studio`."""

from lediflow.studio import main

if __name__ == "__main__":
    main()
