"""The composition root: resources, services, routes and jobs. No other package chooses implementations."""
