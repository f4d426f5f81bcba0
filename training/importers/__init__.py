"""One file a public dataset: its published layout becomes a Penchant dataset."""
