"""Random walks through the interface, checked against models that cannot be wrong."""
