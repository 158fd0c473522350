"""What proves the rest: a driver for an app's own tests, and the oracle that recomputes everything.

May enter any room; none but `ops` enters it, for the oracle.
"""

from c360.testing.driver import TestDriver

__all__ = ["TestDriver"]
