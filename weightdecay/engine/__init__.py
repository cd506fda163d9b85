"""Groups, plans, lanes and devices: `fit_grid` and `map_grid`.

This is the only room that knows that there is more than one member. What a member computes is behind one interface,
`weightdecay.engine.workload`: its programs are compiled, a lane is made ready, advanced and collected. Read that file
first; it has the shapes, and the two seats for other strategies and other executors.

Principles: the bits of a member never depend on its position, its neighbours, the devices or an interruption; only a
mesh, whose devices compute a member together, is part of them.
Everything is checked on shapes before anything is compiled. Members are batched in `lane_programs` and nowhere else.

.. include:: running.md
.. include:: meshes.md
.. include:: fine_tuning.md
.. include:: speed.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
