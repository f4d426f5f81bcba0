"""What a dataset holds, and what of it is suspicious though the contract allows it."""
