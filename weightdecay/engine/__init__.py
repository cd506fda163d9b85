"""Groups, plans, lanes and devices: `fit_grid` and `map_grid`.

.. include:: running.md
.. include:: speed.md
"""
