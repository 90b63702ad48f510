"""Benchmarks of Guerdon against a conventional baseline. Run `python -m bench --help`."""
