"""Groups, plans, lanes and devices: `fit_grid` and `map_grid`."""
