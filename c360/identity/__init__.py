"""Who a record is about: namespaces of identifiers and how their values are normalised. Pure: no I/O, no clock."""
