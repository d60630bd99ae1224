"""The trio adapter, beside what the conformance suite proves through its driver."""
