"""One rank of a training whose lease is renewed at another pace: `python -m harness.leased_rank SECONDS OPTIONS`."""

from __future__ import annotations

import sys

from lediflow import train
from lediflow.engine import lease


def main(arguments: list[str]) -> None:
    lease.INTERVAL_SECONDS = float(arguments[0])
    sys.argv[1:] = arguments[1:]
    train.main()


if __name__ == "__main__":
    main(sys.argv[1:])
