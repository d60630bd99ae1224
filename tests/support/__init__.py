"""What every test of this project may lean on.

- ``watch``: limits, thread dumps, waiting for a condition instead of for a time;
- ``threads``: threads whose exceptions and results come back to the test;
- ``backends``: which backends this run must prove, and why the others are skipped;
- ``drivers``: the ways of using a port, behind one interface;
- ``net``: sockets of every family, and the peer's side of a conversation;
- ``children``: scripts that need a process of their own.
"""
