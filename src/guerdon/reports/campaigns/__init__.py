"""Reports on campaigns: decisions, points, costs, revenue and budgets."""
