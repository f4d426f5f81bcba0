"""Offline: a dataset becomes a run, and a run becomes a bundle and a snapshot."""
