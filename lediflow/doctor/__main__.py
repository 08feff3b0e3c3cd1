"""`python -m lediflow.doctor`."""

from lediflow.doctor import main

if __name__ == "__main__":
    main()
