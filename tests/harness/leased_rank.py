"""One rank of a training whose lease is renewed at another pace: main([SECONDS, *arguments of lediflow.train])."""

from __future__ import annotations

import sys

from lediflow import train
from lediflow.engine import lease_record


def main(arguments: list[str]) -> None:
    lease_record.INTERVAL_SECONDS = float(arguments[0])
    sys.argv[1:] = arguments[1:]
    train.main()
