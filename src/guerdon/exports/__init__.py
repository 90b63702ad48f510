"""Exports: lists and reports written to files by workers, and the download of these files."""
