"""One member: what is trained, one training step, its evaluation and its end.

- Every function is pure and is written for one member; `weightdecay.engine` maps it over many.
- Coefficients, learning rates, seeds and all other numbers of a member may be traced: no ``if`` depends on them.
- Random numbers follow from the member's own seed alone, see `weightdecay.core.random_streams`.
- The data loss and the penalty are never added together in what is recorded.

`task` holds the three records (`Task`, `Hyperparameters`, `State`), `step` trains, `evaluation` measures,
`early_stopping` decides when a member stops, `losses` and `diagnostics` hold what is measured. A new loss is a function
in `losses`; a new metric is a row of `weightdecay.core.metrics` and a function of the same name in `losses` or
`diagnostics`. `metrics` (``wd.metrics``) has the metrics of a whole split that are no means of examples.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
