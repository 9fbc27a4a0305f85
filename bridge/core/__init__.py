"""The pure part: no sockets, no clock, no environment. The same input gives the same output.

Nothing in here imports anything that can do I/O; ``tests/test_architecture.py`` checks it.
"""
