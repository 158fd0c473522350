"""What data may be used for: purposes, consent, the fence before doors. Pure: no I/O, no clock."""
