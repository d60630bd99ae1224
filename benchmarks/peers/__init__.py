"""The programs that portio is compared with, and the load for the echo servers."""
