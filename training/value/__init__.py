"""The value model: from logged exposures to a network in the run folder (docs/value-model.md)."""
