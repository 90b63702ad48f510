"""`python -m tools.query_plans`, which `make explain` runs; see explain.py."""

import typer

from tools.query_plans.explain import explain_queries

if __name__ == "__main__":
    typer.run(explain_queries)
