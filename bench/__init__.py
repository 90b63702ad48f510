"""The speed of Guerdon against what most people write, measured in one run. `python -m bench --help`."""
