"""`python -m guerdon`."""

from guerdon.cli.main import main

main()
