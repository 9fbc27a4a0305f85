"""Derives unified records again from raw, by the very functions that live uses."""
