"""Two starts of one run never write its folder together: the first rank holds RUN/lease.json while it trains.

A machine that its scheduler takes for lost may work on while the run is started again elsewhere. So a holder changes
its lease every few seconds, and leaves when it finds somebody else's in its place.

Conventions:
- Clocks of two machines are never compared. A newcomer watches, by its own clock, whether a lease changes; a holder
  counts, by its own, how long ago it last renewed its lease.
- A newcomer renames a file of its own over the lease; a holder renews through the descriptor of the file it once made.
  So the older one cannot overwrite the newer one's lease, however late it wakes up.
- A holder that could not renew its lease for PATIENCE intervals believes in it no longer: that is before anybody else,
  who waits as long from a later moment on, takes it for abandoned.
Source: Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache consistency", 1989.
"""

from lediflow.engine.lease.holding import EveryonesLease, Lease, leased
from lediflow.engine.lease.record import LeaseRecord, read_lease

__all__ = ["EveryonesLease", "Lease", "LeaseRecord", "leased", "read_lease"]
