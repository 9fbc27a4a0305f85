"""The exchange's private side: accounts with keys, balances, positions and orders."""
