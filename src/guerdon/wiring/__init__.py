"""The composition root: resources, services, routes and jobs. Only this package chooses implementations."""
