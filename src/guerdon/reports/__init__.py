"""Reports: queries on the rows of the view groups, their definitions and their routes. No command reads them."""
