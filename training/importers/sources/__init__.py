"""Rows out of files of the usual formats; what a column means is not known here."""
