"""The exchange simulator: Binance's wire, made-up or recorded markets, faults and ground truth."""
