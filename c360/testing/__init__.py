"""What proves the rest: the oracle that recomputes everything. May enter any room; none but `ops` enters it."""
